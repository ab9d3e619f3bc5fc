// Ordinary arrays of `train` and `backward` on several threads. Workers cannot see them, so the calling thread copies them
// into shared memory that is free, each as a whole and once in a call, and results out of it. To the engine, that memory is
// the stream buffers (src/engine/operand.ts), which for such a call are as large as its arrays. Where this takes longer than
// a call on one thread, arrays go through small stream buffers in parts, as everywhere else: trying says where.

import { Memory, slotOf } from "../engine/memory.js";
import { EARLY, LATE } from "./sizes.js";

/** Places in free memory: one for the array that workers write, the others for those that they only read. */
const PLACES = 5;

/** Shared memory. Its free part holds the ordinary arrays during a call; nothing of them is kept after it. */
export class SharedMemory extends Memory {
  override most: number | undefined = undefined;
  /** Ends a call that was cut short, whose workers may still write to what is free (assembly/crew.ts). */
  settle?: () => void;
  readonly #parts = this.streams;
  #turn = 0;

  constructor(bytes: number) {
    super(bytes, true);
  }

  protected override gap(size: number): number {
    this.settle?.();
    return super.gap(size);
  }

  /**
   * Has `count` stream buffers of `size` values, until they are dropped, if there is room for them. Returns whether there is.
   *
   * The one of index `written` keeps its place. The others move from call to call, as far as there is room: what several
   * cores have only read lies in the caches of all of them, and to write there, a core has to ask the others, line by line.
   */
  hold(size: number, count: number, written: number): boolean {
    // Nearly always they begin at different addresses modulo 4096, and 16 bytes behind a cache line: see STAGGER of
    // src/engine/memory.ts.
    const each = 64 * Math.ceil((size + 336) / 16);
    let places = count > 1 ? PLACES : 1;
    let start = this.gap(places * each);
    while (start === 0 && places > count) start = this.gap(--places * each);
    if (start === 0) return false;
    this.streams = Array.from({ length: count }, (_, i) => {
      const place = i === written ? 0 : 1 + (this.#turn++ % (places - 1));
      const at = start + place * each + 16;
      return slotOf(at, new Float32Array(this.wasm.buffer, at, size));
    });
    this.most = size;
    return true;
  }

  /** Has the stream buffers again through which arrays go in parts. */
  drop(): void {
    this.most = undefined;
    this.streams = this.#parts;
  }
}

/** Of one kind of calls: how many there were, and the time of the shortest recent one in parts, and of the shortest held one. */
type Known = [calls: number, parts: number, held: number];

/** Which way calls take less time, by their kinds. */
export class Habits {
  readonly #known = new Map<number, Known>();
  #call: Known | undefined;
  #way: 1 | 2 = 1;
  #start = 0;

  /** Begins a call of a kind. Returns whether its arrays are to be held. */
  begin(kind: number): boolean {
    if (this.#known.size > 999) this.#known.clear();
    let known = this.#known.get(kind);
    if (known === undefined) this.#known.set(kind, (known = [0, Infinity, Infinity]));
    const calls = known[0]++;
    const tries = calls < EARLY || calls % LATE === 0;
    this.#way = (tries ? calls % 2 === 0 : known[2] <= known[1]) ? 2 : 1;
    this.#call = known;
    this.#start = performance.now();
    return this.#way === 2;
  }

  /** The call that has begun does not count: it has thrown, or there was no room for its arrays. */
  forget(): void {
    this.#call = undefined;
  }

  /** Ends the call that has begun, if there is one. A single call that something has delayed is to change little. */
  end(): void {
    const known = this.#call;
    if (known === undefined) return;
    const took = performance.now() - this.#start;
    known[this.#way] = Math.min(took, 1.125 * known[this.#way]);
    this.forget();
  }
}
