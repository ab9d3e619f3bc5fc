// Runs the kernels without the package around them, in a memory of their own, and checks every byte of that memory.

import { readFileSync } from "node:fs";
import { instantiateSync } from "@assemblyscript/loader";
import type { Exports } from "../../src/engine/machine.js";
import type { At } from "../../src/engine/memory.js";
import { GUARD } from "./guards.js";

const moduleOf = (name: string): WebAssembly.Module =>
  new WebAssembly.Module(readFileSync(new URL(`../../build/${name}.wasm`, import.meta.url)));

type Floats = Float32Array | Float64Array;

/** An array in that memory. The compiler accepts it only for an argument of a kernel that takes a `What`. */
export interface Slot<A extends Floats, What extends string = string> {
  readonly at: At<What>;
  readonly array: A;
}

/** The arrays of the terms, in the order in which they lie. */
const TERMS = ["center", "scale", "shift", "slope"] as const;
type Term = (typeof TERMS)[number];

/** The terms: the address of the first array, which is all that a kernel is given, and the four arrays. */
type Terms = { readonly at: At<"terms"> } & Readonly<Record<Term, Slot<Float32Array>>>;

/** An array that a kernel may write, and how many values behind it the kernel may write too. */
export type Writes = readonly [Slot<Floats>, padding?: number];

/** How many float32 values the scratch of reductions of rows has: six arrays of SCRATCH bytes (assembly/blocks.ts). */
export const SCRATCH = 6 * (1024 + 84);

/** Bytes from one array of the terms to the next, as SCALE of assembly/blocks.ts says. */
export const TERM = 4480;

/** The address that lies `bytes` behind another, in the same array. */
export const behind = <What extends string>(at: At<What>, bytes: number): At<What> =>
  (at + bytes) as At<What>;

/** Lets an input be the output of the same call, for kernels that write in place. */
export const inPlaceOf = (input: Slot<Float32Array>): Slot<Float32Array, "out"> =>
  input as Slot<Float32Array, "out">;

const PAGES = 32;
const MARGIN = 272; // Bytes between two arrays: more than kernels read past the end of one.
const BEHIND = 4096; // Bytes behind the last array that are checked.

/** The kernels and their memory, in which guard values lie around every array. */
export class Binary {
  readonly run: Exports;
  readonly #words: Uint32Array;
  readonly #before: Uint32Array;
  readonly #buffer: ArrayBuffer;
  #next = 0;

  /** @param names the binaries: those of a layer, or the smallest one, which has some of their kernels. */
  constructor(names: readonly ("frozen" | "kernels" | "infer")[] = ["frozen", "kernels"]) {
    const memory = new WebAssembly.Memory({ initial: PAGES, maximum: PAGES });
    const instances = names.map((name) => instantiateSync(moduleOf(name), { env: { memory } }));
    this.run = Object.assign({}, ...instances.map(({ exports }) => exports)) as Exports;
    this.#buffer = memory.buffer;
    this.#words = new Uint32Array(memory.buffer);
    this.#words.fill(GUARD);
    this.#before = new Uint32Array(this.#words.length);
    this.reset();
  }

  /** Forgets all arrays, and fills the whole memory with guard values. */
  reset(): void {
    this.#watched().fill(GUARD);
    this.#next = MARGIN;
  }

  /** Places float32 values 4·lead bytes past a multiple of 16. */
  f32<What extends string>(values: number | ArrayLike<number>, lead = 0): Slot<Float32Array, What> {
    const length = typeof values === "number" ? values : values.length;
    return this.#float32(this.#place<What>(length * 4, 4 * lead), length, values);
  }

  /** Places float64 values: at a multiple of 16, or 8 bytes past one if `lead` is 1. */
  f64<What extends string>(values: number | ArrayLike<number>, lead = 0): Slot<Float64Array, What> {
    const length = typeof values === "number" ? values : values.length;
    const at = this.#place<What>(length * 8, 8 * (lead & 1));
    const array = new Float64Array(this.#buffer, at, length);
    if (typeof values !== "number") array.set(values);
    return { at, array };
  }

  /**
   * Places the terms of `n` columns or channels, TERM bytes from one array to the next. Guard values lie between
   * the arrays, and fill those for which no values are given.
   */
  terms(n: number, values: Partial<Record<Term, Float32Array>> = {}): Terms {
    const at = this.#place<"terms">(3 * TERM + n * 4, 0);
    const [center, scale, shift, slope] = TERMS.map((name, i) =>
      this.#float32(behind<string>(at, i * TERM), n, values[name] ?? n),
    );
    return { at, center: center!, scale: scale!, shift: shift!, slope: slope! };
  }

  #float32<What extends string>(
    at: At<What>,
    length: number,
    values: number | ArrayLike<number>,
  ): Slot<Float32Array, What> {
    const array = new Float32Array(this.#buffer, at, length);
    if (typeof values !== "number") array.set(values);
    return { at, array };
  }

  #watched(): Uint32Array {
    return this.#words.subarray(0, (this.#next + BEHIND) >> 2);
  }

  /** Reserves `bytes` bytes that begin `lead` bytes past a multiple of 16. */
  #place<What extends string>(bytes: number, lead: number): At<What> {
    const at = Math.ceil(this.#next / 16) * 16 + lead;
    this.#next = at + bytes + MARGIN;
    if (this.#next + BEHIND > this.#buffer.byteLength) throw new Error("The test's memory is full");
    return at as At<What>;
  }

  /** Runs a kernel, and throws if memory has changed outside of the arrays that the kernel may write. */
  call<T>(writes: readonly Writes[], kernel: (run: Exports) => T): T {
    const { run } = this;
    const words = this.#watched();
    const before = this.#before;
    before.set(words);
    const result = kernel(run);
    const allowed = writes
      .map(([{ at, array }, padding = 0]) => {
        const size = array.BYTES_PER_ELEMENT;
        return { from: at / 4, to: (at + (array.length + padding) * size) / 4 };
      })
      .sort((a, b) => a.from - b.from);
    let from = 0;
    for (const range of [...allowed, { from: words.length, to: words.length }]) {
      for (let i = from; i < range.from; i++) {
        if (words[i] !== before[i]) throw new Error(`A kernel wrote to address ${4 * i}`);
      }
      from = range.to;
    }
    return result;
  }
}
