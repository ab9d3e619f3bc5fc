// Pickles, the serialized objects of Python, protocols 2 to 5: read as values, never run. A class or
// function that a pickle names stays a name, and calling it makes an object of which that is known
// (https://docs.python.org/3/library/pickletools.html and Lib/pickletools.py of CPython, which
// describes every opcode).

import { StateError } from "../errors.js";
import { textOf, viewOfBytes, wholeOf } from "./bytes.js";
import { Global, PyObject } from "./python.js";

/** What the values of a pickle become; everything else is as this file has it. */
export interface PickleHooks {
  /** What a persistent id stands for. */
  persistent(id: unknown): unknown;
  /** What a call amounts to; `undefined` for an object of which nothing is known. */
  call(path: string, args: readonly unknown[]): unknown;
}

// Estimates of what values take in memory, in bytes; a pickle has most of them for one or two.
const NUMBER = 16;
const TEXT = 32;
const CONTAINER = 64;
const MAP = 200;
const ENTRY = 48;
const SLOT = 8;
/** How much values may take beside half the size of the file that they are from. */
const MOST_MEMORY = 1 << 25;
/** How many values may lie ready to be put together: more than any tuple has. */
const MOST_READY = 1 << 20;

/** A pickle that is being read. */
class Machine {
  #position: number;
  #memory: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #hooks: PickleHooks;
  readonly #stack: unknown[] = [];
  /** How long the stack was at each mark. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, unknown>();
  readonly #globals = new Map<string, Global>();

  constructor(bytes: Uint8Array, position: number, hooks: PickleHooks, whole: number) {
    this.#bytes = bytes;
    this.#view = viewOfBytes(bytes);
    this.#position = position;
    this.#hooks = hooks;
    this.#memory = MOST_MEMORY + whole / 2;
  }

  run(): { value: unknown; end: number } {
    for (;;) {
      const opcode = String.fromCharCode(this.#uint8());
      if (opcode === ".") return { value: this.#pop(), end: this.#position };
      const operation = Machine.#OPERATIONS[opcode];
      if (operation === undefined) {
        throw this.#error(`the unknown opcode 0x${opcode.charCodeAt(0).toString(16)}`);
      }
      operation(this);
    }
  }

  #error(got = "a damaged one"): StateError {
    return new StateError("bytes", "a pickle", `${got} at ${this.#position}`);
  }

  /** Counts what a value takes. */
  #spend(bytes: number): void {
    this.#memory -= bytes;
    if (this.#memory < 0) {
      throw new StateError(
        "bytes",
        "a pickle of tensors and little else",
        "one of more values than memory is taken for; in Python: torch.save(model.state_dict(), path)",
      );
    }
  }

  // ---- numbers and text ----

  /** Where the next `length` bytes begin, which are behind then. */
  #take(length: number): number {
    const at = this.#position;
    if (length > this.#bytes.length - at) throw this.#error("one that breaks off");
    this.#position = at + length;
    return at;
  }

  /** The next bytes. */
  #part(length: number): Uint8Array {
    const begin = this.#take(length);
    return this.#bytes.subarray(begin, begin + length);
  }

  #uint8(): number {
    return this.#bytes[this.#take(1)]!;
  }

  /** A whole number of some bytes, low byte first. */
  #uint(size: number): number {
    return wholeOf(this.#part(size), false);
  }

  /** A whole number of any length in two's complement; beyond 2^53 to the digits of a float64. */
  #int(size: number): number {
    this.#spend(NUMBER);
    return wholeOf(this.#part(size), true);
  }

  /** A float64, the one number that is written with its high byte first. */
  #float(): number {
    this.#spend(NUMBER);
    return this.#view.getFloat64(this.#take(8));
  }

  #text(length: number): string {
    const part = this.#part(length);
    this.#spend(TEXT + 2 * length);
    return textOf("bytes: text of a pickle", part);
  }

  /** A str of Python 2, which is text or other bytes; those are of no use here. */
  #oldText(length: number): string | null {
    const end = this.#position + length;
    try {
      return this.#text(length);
    } catch (error) {
      if (this.#position !== end || this.#memory < 0) throw error;
      return null;
    }
  }

  #line(): string {
    const end = this.#bytes.indexOf(10, this.#position);
    const text = this.#text(end < 0 ? Number.POSITIVE_INFINITY : end - this.#position);
    this.#take(1);
    return text;
  }

  // ---- the stack ----

  #push(value: unknown): void {
    if (this.#stack.length >= MOST_READY) throw this.#error("a tuple of too many values");
    this.#stack.push(value);
  }

  #pop(): unknown {
    if (this.#stack.length <= (this.#marks.at(-1) ?? 0)) {
      throw this.#error();
    }
    return this.#stack.pop();
  }

  #top(): unknown {
    const value = this.#pop();
    this.#stack.push(value);
    return value;
  }

  #mark(): void {
    if (this.#marks.length >= MOST_READY) throw this.#error();
    this.#marks.push(this.#stack.length);
  }

  /** All values since the last mark, as one. */
  #popMark(): unknown[] {
    const mark = this.#marks.pop();
    if (mark === undefined) throw this.#error();
    return this.#last(this.#stack.length - mark);
  }

  /** The last values as one. */
  #last(count: number): unknown[] {
    this.#spend(CONTAINER + SLOT * count);
    const from = this.#stack.length - count;
    if (from < (this.#marks.at(-1) ?? 0)) throw this.#error();
    return this.#stack.splice(from);
  }

  #remember(index: number): void {
    if (!this.#memo.has(index)) this.#spend(ENTRY);
    this.#memo.set(index, this.#top());
  }

  #recall(index: number): void {
    if (!this.#memo.has(index)) throw this.#error();
    this.#push(this.#memo.get(index));
  }

  // ---- dicts, lists, objects ----

  #global(module: unknown, name: unknown): void {
    if (typeof module !== "string" || typeof name !== "string") {
      throw this.#error();
    }
    const path = `${module}.${name}`;
    let found = this.#globals.get(path);
    if (found === undefined) {
      this.#spend(CONTAINER + ENTRY + 2 * path.length);
      found = new Global(path);
      this.#globals.set(path, found);
    }
    this.#push(found);
  }

  #object(type: Global | null): PyObject {
    this.#spend(CONTAINER);
    const object = new PyObject(type);
    this.#push(object);
    return object;
  }

  /** Sets what stands in pairs of key and value in the object below them. */
  #set(pairs: readonly unknown[]): void {
    const target = this.#top();
    if (!(target instanceof PyObject) || pairs.length % 2 !== 0) {
      throw this.#error();
    }
    if (target.items === null) {
      this.#spend(MAP);
      target.items = new Map();
    }
    this.#spend((ENTRY * pairs.length) / 2);
    for (let i = 0; i < pairs.length; i += 2) target.items.set(pairs[i], pairs[i + 1]);
  }

  /** Adds values to the list below them; what objects have beside attributes and keys is left. */
  #append(values: readonly unknown[]): void {
    const target = this.#top();
    if (Array.isArray(target)) {
      this.#spend(SLOT * values.length);
      for (const value of values) target.push(value);
    } else if (!(target instanceof PyObject)) throw this.#error();
  }

  /** What calling a class or function amounts to, without a call. */
  #call(): void {
    const args = this.#pop();
    const callable = this.#pop();
    const type = callable instanceof Global ? callable : null;
    const known = type && Array.isArray(args) ? this.#hooks.call(type.path, args) : undefined;
    if (known !== undefined) {
      this.#push(known);
      return;
    }
    const object = this.#object(type ?? new Global("?"));
    // As Python 2 writes an OrderedDict: with the pairs that it is made from.
    const [pairs] = object.isDict && Array.isArray(args) ? args : [];
    if (!Array.isArray(pairs)) return;
    for (const pair of pairs) this.#set(Array.isArray(pair) ? pair : [pair]);
  }

  /** Gives an object its attributes. */
  #build(): void {
    const state = this.#pop();
    const target = this.#top();
    if (target instanceof PyObject) target.state = Array.isArray(state) ? state[0] : state;
  }

  /** Bytes, which hold no tensor of a torch file. */
  #skip(length: number): void {
    this.#take(length);
    this.#push(null);
  }

  /** What each opcode does. */
  static readonly #OPERATIONS: Readonly<Record<string, (m: Machine) => void>> = {
    "\x80": (m) => m.#take(1), // PROTO
    "\x95": (m) => m.#take(8), // FRAME
    N: (m) => m.#push(null),
    "\x88": (m) => m.#push(true),
    "\x89": (m) => m.#push(false),
    K: (m) => m.#push(m.#uint8()),
    M: (m) => m.#push(m.#uint(2)),
    J: (m) => m.#push(m.#int(4)),
    "\x8a": (m) => m.#push(m.#int(m.#uint8())),
    "\x8b": (m) => m.#push(m.#int(m.#uint(4))),
    G: (m) => m.#push(m.#float()),
    X: (m) => m.#push(m.#text(m.#uint(4))),
    "\x8c": (m) => m.#push(m.#text(m.#uint8())),
    "\x8d": (m) => m.#push(m.#text(m.#uint(8))),
    U: (m) => m.#push(m.#oldText(m.#uint8())),
    T: (m) => m.#push(m.#oldText(m.#uint(4))),
    B: (m) => m.#skip(m.#uint(4)),
    C: (m) => m.#skip(m.#uint8()),
    "\x8e": (m) => m.#skip(m.#uint(8)),
    "\x96": (m) => m.#skip(m.#uint(8)),
    "(": (m) => m.#mark(),
    ")": (m) => m.#push(m.#last(0)),
    "\x85": (m) => m.#push(m.#last(1)),
    "\x86": (m) => m.#push(m.#last(2)),
    "\x87": (m) => m.#push(m.#last(3)),
    t: (m) => m.#push(m.#popMark()),
    l: (m) => m.#push(m.#popMark()),
    "\x91": (m) => m.#push(m.#popMark()), // FROZENSET
    "]": (m) => m.#push(m.#last(0)),
    "\x8f": (m) => m.#push(m.#last(0)), // EMPTY_SET
    a: (m) => m.#append(m.#last(1)),
    e: (m) => m.#append(m.#popMark()),
    "\x90": (m) => m.#append(m.#popMark()), // ADDITEMS
    "}": (m) => m.#object(null),
    d: (m) => {
      const pairs = m.#popMark();
      m.#object(null);
      m.#set(pairs);
    },
    s: (m) => m.#set(m.#last(2)),
    u: (m) => m.#set(m.#popMark()),
    c: (m) => m.#global(m.#line(), m.#line()),
    "\x93": (m) => {
      const [module, name] = m.#last(2);
      m.#global(module, name);
    },
    R: (m) => m.#call(),
    "\x81": (m) => m.#call(), // NEWOBJ
    "\x92": (m) => {
      m.#pop(); // NEWOBJ_EX: arguments by name
      m.#call();
    },
    b: (m) => m.#build(),
    Q: (m) => m.#push(m.#hooks.persistent(m.#pop())),
    h: (m) => m.#recall(m.#uint8()),
    j: (m) => m.#recall(m.#uint(4)),
    q: (m) => m.#remember(m.#uint8()),
    r: (m) => m.#remember(m.#uint(4)),
    "\x94": (m) => m.#remember(m.#memo.size),
    "0": (m) => m.#pop(),
    "1": (m) => m.#popMark(),
    "2": (m) => m.#push(m.#top()),
  };
}

/**
 * The value of the pickle that begins at `position`, and where it ends. None becomes `null`, tuples,
 * lists and sets become arrays, dicts and objects become {@link PyObject}; the contents of bytes are
 * left out. Values may contain themselves, and one may stand in any number of places.
 *
 * @param whole how large the file is that the pickle is part of: memory is taken for its values up to
 * 32 MiB and half of that.
 * @throws StateError for a pickle that is malformed, that breaks off, or that takes more memory.
 */
export const unpickle = (
  bytes: Uint8Array,
  position: number,
  hooks: PickleHooks,
  whole: number,
): { value: unknown; end: number } => new Machine(bytes, position, hooks, whole).run();
