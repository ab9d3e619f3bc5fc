// Describes traversals as jobs, which assembly/pieces.ts takes apart, and says into how many pieces. How many depends on
// dimensions alone, never on the number of threads.

import { ALONE, MOST, PIECE } from "./sizes.js";

/** What a job does: the constants of assembly/pieces.ts. */
export const AFFINE_STRIPS = 0;
export const AFFINE_SWEEP = 1;
export const GRADIENT_STRIPS = 2;
export const GRADIENT_SWEEP = 3;
export const GATE_ROWS = 4;
export const AFFINE_PLANES = 5;
export const GRADIENT_PLANES = 6;
export const GATE_PLANES = 7;
export const MOMENTS_ROWS = 8;
export const MOMENTS_PLANES = 9;
export const SUMS_ROWS = 10;
export const SUMS_PLANES = 11;
export const NEAR = 12;

/** Fields of four bytes in a job; four of eight bytes come behind them. */
const FIELDS = 18;
export const JOB_BYTES = 4 * FIELDS + 32;

/** Bytes of memory that a thread has for itself: what `nearPiece` and `momentsRows` of assembly/ need. */
export const SCRATCH_BYTES = 45056;

/**
 * Into how many pieces some work is cut, if at most `most` are possible; 1 if it does not pay to involve another thread.
 * Work is measured in values of the cheapest kernel. A power of two, so that two, four and eight threads get equal shares.
 */
export function piecesOf(work: number, most: number = MOST): number {
  if (work < ALONE || most < 2) return 1;
  let n = 2;
  while (2 * n <= most && n < MOST && work >= 2 * n * PIECE) n *= 2;
  return n;
}

/** Writes jobs. What the fields mean is in assembly/pieces.ts. */
export class Job {
  readonly at: number;
  readonly #words: Uint32Array;
  readonly #doubles: Float64Array;

  /** @param at the address of the job, a multiple of 8. */
  constructor(buffer: ArrayBufferLike, at: number) {
    this.at = at;
    this.#words = new Uint32Array(buffer, at, FIELDS);
    this.#doubles = new Float64Array(buffer, at + 4 * FIELDS, 4);
  }

  #write(at: number, a: number, b: number, c: number, d: number): this {
    const words = this.#words;
    words[at] = a;
    words[at + 1] = b;
    words[at + 2] = c;
    words[at + 3] = d;
    return this;
  }

  /** Begins a job: what it does, in how many pieces, the tensor that it writes and the first one that it reads. */
  begin(kind: number, pieces: number, out: number, a: number): this {
    return this.#write(0, kind, pieces, out, a);
  }

  /** The second tensor that it reads; the terms; the first two dimensions. */
  on(b: number, terms: number, d0: number, d1: number): this {
    return this.#write(4, b, terms, d0, d1);
  }

  /** The other dimensions, and the residual. The last field is one of `NEAR` alone. */
  of(d2: number, inner: number, add = 0, near = 0): this {
    return this.#write(8, d2, inner, add, near);
  }

  /** Behind another field of `NEAR`, where states go. */
  into(near: number, into0: number, into1: number, into2: number): this {
    return this.#write(12, near, into0, into1, into2);
  }

  /** Rows in a block, and how many parts of columns or channels there are. */
  parts(each: number, parts: number): this {
    this.#words[16] = each;
    this.#words[17] = parts;
    return this;
  }

  /** The first field of eight bytes and the last one, which only `NEAR` has. */
  numbers(first: number, last: number): this {
    this.#doubles[0] = first;
    this.#doubles[3] = last;
    return this;
  }

  /** The range of the activation. */
  limits(low: number, high: number): this {
    this.#doubles[1] = low;
    this.#doubles[2] = high;
    return this;
  }
}
