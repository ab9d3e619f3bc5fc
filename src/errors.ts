// Every class of error of the package. Messages name the argument, what was expected and what came instead. A call
// that throws one of these has changed nothing.

/** What all errors of the package extend. `code` is stable, for programs; `message` is for people. */
export abstract class BatchNormError extends Error {
  /**
   * @internal Makes the message "argument: expected …, got …" of its three parts. With a single argument, that is the
   * whole message.
   */
  constructor(argument: string, expected?: string, got?: string | number, options?: ErrorOptions) {
    super(
      expected === undefined ? argument : `${argument}: expected ${expected}, got ${got}`,
      options,
    );
  }

  /** The class in capitals, without the word Error: `"SHAPE"`, `"SINGLE_VALUE"`, … */
  abstract readonly code: string;
  /** The name of the class. */
  abstract override name: string;
}

/** `channels` or an option is unknown or out of range. */
export class OptionError extends BatchNormError {
  override name = "OptionError";
  readonly code = "OPTION";
}

/** Not a Float32Array, or one whose length, shape or place in memory does not fit. */
export class ShapeError extends BatchNormError {
  override name = "ShapeError";
  readonly code = "SHAPE";
}

/** A variance was needed of a single value per channel, or of none, where it says nothing. */
export class SingleValueError extends BatchNormError {
  override name = "SingleValueError";
  readonly code = "SINGLE_VALUE";
}

/** The data that statistics were to be taken of hold NaN or infinity, or are so large that a variance overflows. */
export class NonFiniteError extends BatchNormError {
  override name = "NonFiniteError";
  readonly code = "NON_FINITE";
}

/** The call does not fit what happened before it, or what a layer holds. */
export class StateError extends BatchNormError {
  override name = "StateError";
  readonly code = "STATE";
}

/** Kernel memory has no room for an `alloc`. */
export class MemoryError extends BatchNormError {
  override name = "MemoryError";
  readonly code = "MEMORY";
}

/** This runtime has no WebAssembly SIMD, or forbids compiling it. */
export class UnsupportedError extends BatchNormError {
  override name = "UnsupportedError";
  readonly code = "UNSUPPORTED";
}

/** Describes a value for a message: `a Float64Array of length 3`, `-1`, `"NWC"`, `null`; a long text by its beginning. */
export function describe(value: unknown): string {
  if (typeof value === "string") {
    // It may be that of a whole file.
    return JSON.stringify(value.slice(0, 100)) + (value[100] ? " …" : "");
  }
  if (typeof value === "function") return "a function";
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value !== "object" || value === null)
    return Object.is(value, -0) ? "-0" : String(value);
  try {
    // What has the member `itself`, as layers have (values/raw.ts), says in one line what it is.
    if ((value as { itself?: unknown }).itself === value) return String(value);
    const kind = Object.prototype.toString.call(value).slice(8, -1);
    const name = `${/^[AEIO]/.test(kind) ? "an" : "a"} ${kind}`;
    if (isArray(value)) return `${name} of length ${value.length}`;
    // A proxy of a typed array, or an object of its prototype, has what the array inherits, but is none.
    return "BYTES_PER_ELEMENT" in value ? "a proxy or copy; give the raw object" : name;
  } catch {
    // A getter of the object threw, or it is a proxy that was revoked.
    return "an object";
  }
}

/** Whether a value is an array or a typed array, and, if `type` is given, the first value in it is of this type. */
export function isArray(value: unknown, type?: string): value is ArrayLike<unknown> {
  try {
    return (
      (Array.isArray(value) || (ArrayBuffer.isView(value) && "length" in value)) &&
      (!type || typeof (value as ArrayLike<unknown>)[0] === type)
    );
  } catch {
    // A proxy that was revoked, or a getter of the array threw.
    return false;
  }
}

/**
 * Throws OptionError unless `options` is an object all of whose own keys are `known`. `oursOf` may say what an option of
 * another package is called here.
 */
export function checkKeys(
  name: string,
  options: unknown,
  known: readonly string[],
  oursOf?: (key: string) => unknown,
): void {
  // An array is an `out` or a shape that was not put into an object. It may be empty, or have so many keys that to go
  // through them takes seconds.
  if (
    typeof options !== "object" ||
    options === null ||
    Array.isArray(options) ||
    ArrayBuffer.isView(options)
  ) {
    throw new OptionError(
      name,
      `an object${known[0] ? ` { ${known.join(", ")} }` : ""}`,
      describe(options),
    );
  }
  for (const key in options) {
    // What somebody put on Object.prototype is no option.
    if (!known.includes(key) && Object.keys(options).includes(key)) {
      const ours = oursOf?.(key) ?? `an option among ${known.join(", ")}`;
      throw new OptionError(key, ours as string, `"${key}"`);
    }
  }
}
