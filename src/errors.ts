// Every error of the package. Messages name the argument, what was expected and what came; a call
// that throws one of these has changed nothing.

/** What all errors of the package extend. `code` is stable, for programs; `message` is for people. */
export class BatchNormError extends Error {
  /** One of the class names below, without the word Error, in capitals: `"SHAPE"`, `"STATE"`, … */
  readonly code: string;

  constructor(message: string, code: string) {
    super(message);
    this.code = code;
  }
}

/** `channels` or an option is unknown or out of range. */
export class OptionError extends BatchNormError {
  constructor(message: string) {
    super(message, "OPTION");
    this.name = "OptionError";
  }
}

/** Not a Float32Array, or one whose length, shape or place in memory does not fit. */
export class ShapeError extends BatchNormError {
  constructor(message: string) {
    super(message, "SHAPE");
    this.name = "ShapeError";
  }
}

/** `train` by mini-batch statistics with one value per channel, whose variance says nothing. */
export class SingleValueError extends BatchNormError {
  constructor(message: string) {
    super(message, "SINGLE_VALUE");
    this.name = "SingleValueError";
  }
}

/** Statistics were asked of data that hold NaN or infinity, or of which they overflow. */
export class NonFiniteError extends BatchNormError {
  constructor(message: string) {
    super(message, "NON_FINITE");
    this.name = "NonFiniteError";
  }
}

/** The call does not fit what happened before it, or what a layer holds. */
export class StateError extends BatchNormError {
  constructor(message: string) {
    super(message, "STATE");
    this.name = "StateError";
  }
}

/** Kernel memory has no room for an `alloc`. */
export class MemoryError extends BatchNormError {
  constructor(message: string) {
    super(message, "MEMORY");
    this.name = "MemoryError";
  }
}

/** This runtime has no WebAssembly SIMD, or forbids compiling it. */
export class UnsupportedError extends BatchNormError {
  constructor(message: string) {
    super(message, "UNSUPPORTED");
    this.name = "UnsupportedError";
  }
}

/** How a value is named in a message: `a Float64Array of length 3`, `-1`, `"NWC"`, `null`. */
export function describe(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) {
    return Object.is(value, -0) ? "-0" : String(value);
  }
  const name = Object.prototype.toString.call(value).slice(8, -1);
  const article = /^[AEIOU]/.test(name) ? "an" : "a";
  const { length } = value as { length?: unknown };
  return typeof length === "number"
    ? `${article} ${name} of length ${length}`
    : `${article} ${name}`;
}
