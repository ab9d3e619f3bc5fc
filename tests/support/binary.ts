// The binary by itself, in a memory of its own whose every byte is watched.

import { readFileSync } from "node:fs";
import { instantiateSync } from "@assemblyscript/loader";
import type { Exports } from "../../src/machine.js";
import { GUARD } from "./guards.js";

const module = new WebAssembly.Module(
  readFileSync(new URL("../../build/kernels.wasm", import.meta.url)),
);

type Floats = Float32Array | Float64Array;

/** An array in the binary's memory. */
export interface Slot<A extends Floats> {
  readonly at: number;
  readonly array: A;
}

/** What a kernel may write: an array, and as many values behind it. */
export type Writes = readonly [Slot<Floats>, padding?: number];

/** Float32 values of the scratch that `momentsRows` takes: six arrays SCRATCH of assembly/lanes.ts. */
export const SCRATCH = 6 * (1024 + 84);

const PAGES = 32;
const MARGIN = 272; // Bytes between arrays: more than kernels read past them.
const BEHIND = 4096; // Bytes watched behind the last array.

/** The kernels, with arrays in their memory between guard values. */
export class Binary {
  readonly run: Exports;
  readonly #words: Uint32Array;
  readonly #before: Uint32Array;
  readonly #buffer: ArrayBuffer;
  #next = 0;

  constructor() {
    const memory = new WebAssembly.Memory({ initial: PAGES, maximum: PAGES });
    this.run = instantiateSync<Exports & Record<string, unknown>>(module, {
      env: { memory },
    }).exports;
    this.#buffer = memory.buffer;
    this.#words = new Uint32Array(memory.buffer);
    this.#words.fill(GUARD);
    this.#before = new Uint32Array(this.#words.length);
    this.reset();
  }

  /** Forgets all arrays: all of the memory is guard values. */
  reset(): void {
    this.#watched().fill(GUARD);
    this.#next = MARGIN;
  }

  /** Places float32 values 4·lead bytes past a multiple of 16. */
  f32(values: number | ArrayLike<number>, lead = 0): Slot<Float32Array> {
    const length = typeof values === "number" ? values : values.length;
    const at = this.#place(length * 4, 16, 4 * lead);
    const array = new Float32Array(this.#buffer, at, length);
    if (typeof values !== "number") array.set(values);
    return { at, array };
  }

  /** Places float64 values; `lead` 1: at an odd multiple of 8. */
  f64(values: number | ArrayLike<number>, lead = 0): Slot<Float64Array> {
    const length = typeof values === "number" ? values : values.length;
    const at = this.#place(length * 8, 16, 8 * (lead & 1));
    const array = new Float64Array(this.#buffer, at, length);
    if (typeof values !== "number") array.set(values);
    return { at, array };
  }

  #watched(): Uint32Array {
    return this.#words.subarray(0, (this.#next + BEHIND) >> 2);
  }

  #place(bytes: number, align: number, lead: number): number {
    const at = Math.ceil(this.#next / align) * align + lead;
    this.#next = at + bytes + MARGIN;
    if (this.#next + BEHIND > this.#buffer.byteLength) throw new Error("The test's memory is full");
    return at;
  }

  /** Runs a kernel and throws if a word changed outside of what it may write. */
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
