// Reads pickles, the serialized objects of Python, of protocols 2 to 5, without running any code. A class
// or function in a pickle is only a name here. Where a pickle calls one, the result is an object that
// knows it (https://docs.python.org/3/library/pickletools.html and Lib/pickletools.py of CPython, which
// describes every opcode).

import { StateError } from "../errors.js";
import { textOf, viewOfBytes, wholeOf } from "./bytes.js";
import { Global, PyObject } from "./python.js";

/** How to turn into values what depends on the program that wrote the pickle. */
export interface PickleHooks {
  /** The value that a persistent id stands for. */
  persistent(id: unknown): unknown;
  /** The result of a call, `undefined` if the function is not known: the result is a {@link PyObject} then. */
  call(path: string, args: readonly unknown[]): unknown;
}

// Estimates of the memory of values, in bytes. One or two bytes of a pickle are enough to make most of them.
const NUMBER = 16;
const TEXT = 32;
const CONTAINER = 64;
const MAP = 200;
const ENTRY = 48;
const SLOT = 8;
/** How many bytes of memory the values may take, in addition to half the size of the file. */
const MOST_MEMORY = 1 << 25;
/** The most values on the stack, from which tuples and lists are made: more than any tuple has. */
const MOST_READY = 1 << 20;

/** A pickle that is being read. */
class Machine {
  #position: number;
  #memory: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #hooks: PickleHooks;
  readonly #stack: unknown[] = [];
  /** The length of the stack at each mark. */
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

  /** Counts the memory of a value. */
  #spend(bytes: number): void {
    this.#memory -= bytes;
    if (this.#memory < 0) {
      throw new StateError(
        "bytes",
        "a pickle of tensors and little else",
        "one that needs too much memory; torch.save(model.state_dict(), path) in Python makes a smaller one",
      );
    }
  }

  // ---- numbers and text ----

  /** Moves past the next `length` bytes, and returns where they begin. */
  #take(length: number): number {
    const at = this.#position;
    if (length > this.#bytes.length - at) throw this.#error("one that breaks off");
    this.#position = at + length;
    return at;
  }

  /** Reads the next `length` bytes. */
  #part(length: number): Uint8Array {
    const begin = this.#take(length);
    return this.#bytes.subarray(begin, begin + length);
  }

  #uint8(): number {
    return this.#bytes[this.#take(1)]!;
  }

  /** Reads an unsigned whole number of `size` bytes, low byte first. */
  #uint(size: number): number {
    return wholeOf(this.#part(size), false);
  }

  /** Reads a whole number in two's complement. Beyond 2^53 it is rounded to a float64. */
  #int(size: number): number {
    this.#spend(NUMBER);
    return wholeOf(this.#part(size), true);
  }

  /** Reads a float64, the only kind of number that is written with its high byte first. */
  #float(): number {
    this.#spend(NUMBER);
    return this.#view.getFloat64(this.#take(8));
  }

  #text(length: number): string {
    const part = this.#part(length);
    this.#spend(TEXT + 2 * length);
    return textOf("bytes: text of a pickle", part);
  }

  /** Reads a str of Python 2, which may be text or other bytes. Other bytes are not needed, and become null. */
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
    const text = this.#text(end < 0 ? Infinity : end - this.#position);
    this.#take(1);
    return text;
  }

  // ---- the stack ----

  #push(value: unknown): void {
    if (this.#stack.length >= MOST_READY) throw this.#error();
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

  /** Takes all values since the last mark from the stack. */
  #popMark(): unknown[] {
    const mark = this.#marks.pop();
    if (mark === undefined) throw this.#error();
    return this.#last(this.#stack.length - mark);
  }

  /** Takes the last `count` values from the stack. */
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

  /** Sets pairs, given as key, value, key, value and so on, in the object on top of the stack. */
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

  /** Adds values to the list on top of the stack. An object there ignores them: only its items and state count. */
  #append(values: readonly unknown[]): void {
    const target = this.#top();
    if (Array.isArray(target)) {
      this.#spend(SLOT * values.length);
      for (const value of values) target.push(value);
    } else if (!(target instanceof PyObject)) throw this.#error();
  }

  /** Pushes what stands for the result of a call; nothing is called. */
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
    // Python 2 writes an OrderedDict as a call with a list of pairs.
    const [pairs] = object.isDict && Array.isArray(args) ? args : [];
    if (!Array.isArray(pairs)) return;
    for (const pair of pairs) this.#set(Array.isArray(pair) ? pair : [pair]);
  }

  /** Sets the attributes of the object on top of the stack. */
  #build(): void {
    const state = this.#pop();
    const target = this.#top();
    if (target instanceof PyObject) target.state = Array.isArray(state) ? state[0] : state;
  }

  /** Skips bytes, which never contain a tensor in the files of torch.save. */
  #skip(length: number): void {
    this.#take(length);
    this.#push(null);
  }

  /** The operations by opcode. */
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
 * Reads the pickle that begins at `position`, and returns its value and where it ends. None becomes `null`;
 * tuples, lists and sets become arrays; dicts and objects become {@link PyObject}; bytes become `null`. A
 * value may contain itself, and the same value may stand in any number of places.
 *
 * @param whole the size in bytes of the file that the pickle is part of. Its values may take 32 MiB of
 * memory and half of this size.
 * @throws StateError for a pickle that is malformed, that breaks off, or whose values take more memory.
 */
export const unpickle = (
  bytes: Uint8Array,
  position: number,
  hooks: PickleHooks,
  whole: number,
): { value: unknown; end: number } => new Machine(bytes, position, hooks, whole).run();
