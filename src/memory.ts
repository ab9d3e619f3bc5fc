// The only file that touches memory.buffer: where everything lies in kernel memory, and the tensors
// that users allocate. The memory never grows, so views stay valid.
//
//   0 … parameter arrays of one tile of channels: test time … stream buffer … training: another one,
//     arrays, scratch … tensors … SLACK

import { bufferOf, offsetOf } from "./arrays.js";
import { describe, MemoryError, OptionError, StateError } from "./errors.js";

/** Columns that the parameter arrays hold: what is wider goes in tiles of channels. */
export const MAX_COLUMNS = 1024;
/**
 * Float32 values in a stream buffer, 256 KiB, and at most in a part of an array that goes through it, but
 * for a block of moments, which fills two. A block of any other rows fits (`rowsOf`), and it is a multiple
 * of BLOCK_PLANE (assembly/lanes.ts), so that reductions are cut between blocks and give the same bits in
 * one part or many. Half of it took an eighth longer for [32, 64, 56, 56].
 */
export const STREAM_FLOATS = 65536;

const PAGE = 65536;
// Plain numbers: a bundler drops those that an entry does not use, and keeps what is to be worked out.
/** The least that a memory has. */
export const MIN_BYTES = 1048576;
const MAX_BYTES = 4294967296;
/** 16 MiB: tensors for a layer of a usual size, and little beside the 128 MB of an edge worker. */
export const DEFAULT_BYTES = 16777216;

// Kernels read whole vectors past what they are given (lanes.ts).
const SLACK = 16;
// Loads that follow stores to the same address modulo 4096 wait for them: [1024, 1024] took 265 µs
// with x and y so placed, 165 otherwise. So neighbours start at different places modulo 4096. And 16 bytes
// behind a cache line, as malloc has large arrays: memmove then copies whole lines to whole lines. Infer of
// an ordinary [32, 64, 56, 56] in planes took an eighth longer at the beginning of lines.
const STAGGER = 336;

/** A float32 or float64 array at a fixed place of kernel memory. */
export interface Slot<A> {
  readonly at: number;
  readonly array: A;
  /** The view that `firstOf` made last: a new one costs more than the copy it is made for. */
  part: A;
}

/** The first n values of a slot. */
export function firstOf<A extends Float32Array | Float64Array>(slot: Slot<A>, n: number): A {
  if (slot.part.length !== n) slot.part = slot.array.subarray(0, n) as A;
  return slot.part;
}

const slotOf = <A>(at: number, array: A): Slot<A> => ({ at, array, part: array });

/** Has a place for an array of MAX_COLUMNS parameters. */
type Place<A> = () => Slot<A>;

/** What the elementwise kernels compute with; `slope` is of the gradient alone. */
const elementwiseSlots = (f32: Place<Float32Array>) => ({
  hi: f32(),
  scale: f32(),
  shift: f32(),
  slope: f32(),
});

/** The parameter arrays of test time, in the order in which they lie in memory. */
const affineSlots = (f32: Place<Float32Array>) => ({
  ...elementwiseSlots(f32),
  /** The same laid out for the columns of a row. */
  columns: elementwiseSlots(f32),
});

/** The other ones. */
const trainingSlots = (f32: Place<Float32Array>, f64: Place<Float64Array>) => ({
  base: f32(),
  gamma: f32(),
  beta: f32(),
  dgamma: f32(),
  dbeta: f32(),
  offset: f64(),
  m2: f64(),
  mean: f64(),
  meanLow: f64(),
  variance: f64(),
  runningMean: f64(),
  runningVariance: f64(),
  sumDy: f64(),
  sumDyX: f64(),
});

interface Block {
  readonly start: number;
  readonly end: number;
  /** Where the tensor begins: behind the stagger. */
  readonly at: number;
  readonly bytes: number;
  /** As it was given to its user. */
  readonly view: Float32Array;
}

/** Not an address. */
const FREED = -1;

/** A WebAssembly memory of fixed size with what test time needs, and no room for tensors of users. */
export class Buffers {
  /** @internal Not in the types, which need no WebAssembly then. */
  readonly wasm: WebAssembly.Memory;
  readonly slots: ReturnType<typeof affineSlots>;
  /**
   * Buffers through which ordinary arrays go, held there or in parts: one, and another one in training. The
   * first then reaches into the second: moments, whose blocks are larger, need no other.
   */
  readonly streams: readonly Slot<Float32Array>[];
  #next = STAGGER;

  constructor(bytes: number) {
    const pages = bytes / PAGE;
    try {
      this.wasm = new WebAssembly.Memory({ initial: pages, maximum: pages });
    } catch {
      throw new MemoryError(
        `memory: expected a size that this runtime can give, got ${bytes} bytes`,
      );
    }
    this.slots = affineSlots(() => this.float32(MAX_COLUMNS));
    // The last of these: that of `Memory` has to follow it.
    this.streams = [this.float32(STREAM_FLOATS)];
  }

  /** The next free place, for `bytes`. */
  protected place(bytes: number): number {
    const at = this.#next;
    this.#next = alignUp(at + bytes + SLACK, 64) + STAGGER;
    return at;
  }

  protected float32(length: number): Slot<Float32Array> {
    const at = this.place(length * 4);
    return slotOf(at, new Float32Array(this.wasm.buffer, at, length));
  }

  /** The address of `array` if it lies in a tensor of this memory, -1 if it is an ordinary array. */
  addressOf(_name: string, _array: Float32Array): number {
    return -1;
  }
}

/** A memory with what training needs, and with tensors that users allocate behind that. */
export class Memory extends Buffers {
  declare readonly streams: readonly Slot<Float32Array>[];
  declare readonly slots: ReturnType<typeof affineSlots> & ReturnType<typeof trainingSlots>;
  /** Room for what a reduction holds of one block: six arrays. */
  readonly scratch: number;
  // The memory never grows, so this stays its buffer; asking the memory for it costs a call.
  readonly #buffer = this.wasm.buffer;
  readonly #tensors: number;
  readonly #end = this.#buffer.byteLength - SLACK;
  /** Live tensors in ascending order. */
  readonly #live: Block[] = [];
  /**
   * Addresses of the views that `allocate` made; FREED for those given back: another tensor may lie where
   * they point. Found in 10 ns, where it took 40 to ask an array for its buffer and to search for the tensor.
   */
  readonly #addresses = new WeakMap<Float32Array, number>();
  #anyTensor = false;
  #turn = 0;

  constructor(bytes: number) {
    super(checkBytes(bytes));
    const { at } = this.streams[0]!;
    const second = this.float32(STREAM_FLOATS);
    this.streams = [slotOf(at, new Float32Array(this.#buffer, at, 2 * STREAM_FLOATS)), second];
    const more = trainingSlots(
      () => this.float32(MAX_COLUMNS),
      () => {
        const at = this.place(MAX_COLUMNS * 8);
        return slotOf(at, new Float64Array(this.#buffer, at, MAX_COLUMNS));
      },
    );
    this.slots = { ...this.slots, ...more };
    // Arrays SCRATCH apart, as in assembly/lanes.ts.
    this.scratch = this.place(6 * (MAX_COLUMNS * 4 + STAGGER));
    this.#tensors = alignUp(this.place(0), 64);
  }

  /** A tensor of `length` values, zeroed. First fit. */
  allocate(length: number): Float32Array<ArrayBuffer> {
    if (!Number.isSafeInteger(length) || length < 0) {
      throw new OptionError(
        `length: expected a whole number of values >= 0, got ${describe(length)}`,
      );
    }
    // What fills pages is staggered against its neighbours, if there is room; whole lines, as promised.
    const bytes = length * 4;
    const lead = bytes >= 16384 ? (this.#turn = (this.#turn + 320) % 4096) : 0;
    const view = this.#place(lead, bytes) ?? this.#place(0, bytes);
    if (view === undefined) {
      throw new MemoryError(
        `length: expected to fit into ${this.bytes} bytes of kernel memory, of which ` +
          `${this.freeBytes} are free, got ${length} values of 4 bytes; for more: new Kernels({ memory: bytes })`,
      );
    }
    return view;
  }

  /** Takes the first gap that holds `bytes` behind `lead` and zeroes them, if there is one. */
  #place(lead: number, bytes: number): Float32Array<ArrayBuffer> | undefined {
    const size = alignUp(lead + Math.max(bytes, 1), 64);
    let start = this.#tensors;
    let index = 0;
    for (; index < this.#live.length; index++) {
      const block = this.#live[index]!;
      if (block.start - start >= size) break;
      start = block.end;
    }
    if (start + size > this.#end) return undefined;
    const at = start + lead;
    const view = new Float32Array(this.#buffer, at, bytes / 4).fill(0);
    this.#live.splice(index, 0, { start, end: start + size, at, bytes, view });
    this.#addresses.set(view, at);
    this.#anyTensor = true;
    return view;
  }

  /** Gives a tensor back. */
  release(view: Float32Array): void {
    if (view.buffer !== this.#buffer) {
      throw new StateError(
        "view: expected a tensor of these kernels, got an array of other memory",
      );
    }
    const index = this.#before(view.byteOffset);
    const block = this.#live[index];
    const freed = this.#addresses.get(view) === FREED;
    if (freed || block?.at !== view.byteOffset || block.bytes !== view.byteLength) {
      throw new StateError(
        "view: expected a tensor as alloc returned it, got one that is freed already or a part",
      );
    }
    this.#live.splice(index, 1);
    // What was given may be another view of all of it; still others are not known.
    this.#addresses.set(view, FREED).set(block.view, FREED);
  }

  /** Size of the memory. */
  get bytes(): number {
    return this.#buffer.byteLength;
  }

  /** Bytes that tensors do not use. */
  get freeBytes(): number {
    return this.#live.reduce(
      (sum, block) => sum - (block.end - block.start),
      this.#end - this.#tensors,
    );
  }

  /** Index of the last tensor that begins at or before an address, -1 if there is none. */
  #before(address: number): number {
    let low = 0;
    let high = this.#live.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#live[middle]!.at <= address) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  override addressOf(name: string, array: Float32Array): number {
    // Before the first tensor nobody has a view of this memory.
    if (!this.#anyTensor) return -1;
    const known = this.#addresses.get(array);
    if (known !== undefined && known !== FREED) return known;
    if (bufferOf(array) !== this.#buffer) return -1;
    // A part of a tensor.
    const from = offsetOf(array);
    const block = this.#live[this.#before(from)];
    const inside = block && from + array.length * 4 <= block.at + block.bytes;
    if (inside && known !== FREED) return from;
    throw new StateError(
      `${name}: expected a tensor of kernel memory in use, got one that is freed already`,
    );
  }
}

const alignUp = (n: number, step: number): number => Math.ceil(n / step) * step;

function checkBytes(bytes: unknown): number {
  if (
    !Number.isSafeInteger(bytes) ||
    (bytes as number) < MIN_BYTES ||
    (bytes as number) > MAX_BYTES
  ) {
    throw new OptionError(
      `memory: expected ${MIN_BYTES} to ${MAX_BYTES} bytes, got ${describe(bytes)}`,
    );
  }
  return alignUp(bytes as number, PAGE);
}
