// The only file that touches memory.buffer: where everything lies in kernel memory, and the tensors
// that users allocate. The memory never grows, so views stay valid.
//
//   test time   terms of one tile of channels, per channel and per column; two stream buffers
//   training    parameters and statistics of that tile, scratch
//   users       tensors

import { describe, MemoryError, OptionError, StateError } from "../errors.js";
import { bufferOf, lengthOf, offsetOf } from "../values/arrays.js";
import { isWhole } from "../values/check.js";

/**
 * An address in kernel memory, in bytes, and what lies there. `What` is for the compiler alone: with it,
 * two pointers in each other's place are an error. "out", "a" and "b" are the tensors of a traversal.
 */
export type At<What extends string> = number & { readonly at: What };

/** The address of an array that does not exist. */
export const NOWHERE = 0 as At<never>;

/** How many columns the parameter arrays hold. Wider rows are processed in tiles of channels. */
export const MAX_COLUMNS = 1024;
/**
 * Float32 values in a stream buffer, 256 KiB. It holds a whole block of any reduction but that of moments,
 * which takes two buffers, and it is a multiple of BLOCK_PLANE (assembly/blocks.ts): so reductions are cut
 * between blocks, and an array that comes in parts gives the same bits as one that comes whole.
 */
export const STREAM_FLOATS = 65536;

/** Which stream buffer `backward` has for the residual. */
export const RESIDUAL = 2;

const PAGE = 65536;
// These are written out as plain numbers, because bundlers do not drop an unused constant that is computed.
/** The smallest size of a memory. */
export const MIN_BYTES = 1048576;
/** The largest one. */
export const MAX_BYTES = 4294967296;
/** 16 MiB: tensors for a layer of a usual size, and little beside the 128 MB of an edge worker. */
export const DEFAULT_BYTES = 16777216;

/** Bytes behind every array: kernels read whole vectors past the end of what they are given. */
const SLACK = 16;
/**
 * Bytes by which neighbouring arrays are moved against each other. Modulo 4096, the arrays of a call must not all
 * begin at the same address, because a load waits for an earlier store whose address is the same modulo 4096. Modulo
 * 64, they begin at 16, as large arrays of malloc do, so that copies between the two go cache line by cache line.
 */
const STAGGER = 336;

/** A float32 or float64 array at a fixed place of kernel memory; `What` says what it holds (`At`). */
export interface Slot<A, What extends string = string> {
  readonly at: At<What>;
  readonly array: A;
  /** The view that `firstOf` made last. It is kept, because making one takes longer than the copy that it is for. */
  part: A;
}

/** The first n values of a slot. */
export function firstOf<A extends Float32Array | Float64Array | Uint8Array>(
  slot: Slot<A>,
  n: number,
): A {
  if (slot.part.length !== n) slot.part = slot.array.subarray(0, n) as A;
  return slot.part;
}

export const slotOf = <A, What extends string>(at: number, array: A): Slot<A, What> => ({
  at: at as At<What>,
  array,
  part: array,
});

type Floats<What extends string> = Slot<Float32Array, What>;
type Doubles<What extends string> = Slot<Float64Array, What>;

/**
 * What the elementwise kernels compute with: y = (x - center)·scale + shift; `slope` is of the gradient
 * alone. They lie one behind the other (SCALE, SHIFT, SLOPE in assembly/blocks.ts), so that one pointer,
 * `at`, serves for all.
 */
function termsSlots<What extends string>(float32: () => Floats<What>) {
  const center = float32();
  const at = center.at as number as At<"terms">;
  return { at, center, scale: float32(), shift: float32(), slope: float32() };
}

/** The arrays of one tile of channels that training needs, by what lies there. */
type TrainingSlots = {
  readonly [Name in "base" | "gamma" | "beta" | "dgamma" | "dbeta"]: Floats<Name>;
} & {
  readonly [Name in
    | "offset"
    | "m2"
    | "mean"
    | "meanLow"
    | "variance"
    | "runningMean"
    | "runningVariance"
    | "sumDy"
    | "sumDyX"]: Doubles<Name>;
};

/** A tensor of a user, and the bytes that it takes, with what was left free before it and after it. */
interface Block {
  readonly start: number;
  readonly end: number;
  /** The bytes of its values: the first one, and the one behind the last. */
  readonly from: number;
  readonly to: number;
  /** The view that the user has. */
  readonly view: Float32Array;
}

/** The tensors that were given back, of all memories: other data may lie there now, or none. */
const freed = new WeakSet<Float32Array>();
/** Whether there is one: asking takes 10 ns, for each ordinary array of each call. */
let anyFreed = false;

/** A WebAssembly memory of fixed size with what test time needs; it has no tensors of users. */
export class Buffers {
  /** @internal With this tag it is not in the published types, which then need no types of WebAssembly. */
  readonly wasm: WebAssembly.Memory;
  /** The terms of the channels of a tile. */
  readonly terms: ReturnType<typeof termsSlots<"channel">>;
  /** The same, laid out for the columns of a row. */
  readonly columns: ReturnType<typeof termsSlots<"column">>;
  /**
   * Buffers through which ordinary arrays go: at test time one for x and one for a residual. In training, the first one
   * reaches to the end of the second, because a block of moments needs the room of both; and `backward` has both for x
   * and dy, so a third one is for the residual (RESIDUAL).
   */
  readonly streams: readonly Slot<Float32Array>[];
  /** With several threads alone: how many values an ordinary array may have that is held; else STREAM_FLOATS. */
  declare most?: number | undefined;
  #next = STAGGER;

  /** @param shared whether other threads may have the memory too. */
  constructor(bytes: number, shared = false) {
    const pages = bytes / PAGE;
    try {
      this.wasm = new WebAssembly.Memory({ initial: pages, maximum: pages, shared });
    } catch {
      // V8 reserves 8 GiB of addresses for a memory, to do without checks of bounds, unless it is told not to.
      throw new MemoryError(
        "memory",
        "a size that this runtime can give (ulimit -v: node --disable-wasm-trap-handler)",
        `${bytes} bytes`,
      );
    }
    this.terms = termsSlots(() => this.float32(MAX_COLUMNS));
    this.columns = termsSlots(() => this.float32(MAX_COLUMNS));
    this.streams = [this.float32(STREAM_FLOATS), this.float32(STREAM_FLOATS)];
  }

  /** The next free place, for `bytes`. */
  protected place(bytes: number): number {
    const at = this.#next;
    this.#next = alignUp(at + bytes + SLACK, 64) + STAGGER;
    return at;
  }

  protected float32<What extends string>(length: number): Floats<What> {
    const at = this.place(length * 4);
    return slotOf(at, new Float32Array(this.wasm.buffer, at, length));
  }

  /** The address of `array` if it lies in a tensor of this memory, -1 if it is an ordinary array. */
  addressOf(_name: string, _array: Float32Array): number {
    return -1;
  }
}

/** A memory with what training needs as well, and with the tensors that users allocate. */
export class Memory extends Buffers {
  declare streams: readonly Slot<Float32Array>[];
  readonly slots: TrainingSlots;
  /** Room for what a reduction holds of one block: six arrays, SCRATCH bytes apart (assembly/blocks.ts). */
  readonly scratch: At<"scratch">;
  /** Room for bits of values, in the stream buffer of the residual: no call needs both (bits.ts). */
  readonly bits: Slot<Uint8Array, "bits">;
  // Kept here, because asking the memory for its buffer costs a call. As the memory never grows, it stays the same.
  readonly #buffer = this.wasm.buffer;
  readonly #tensors: number;
  readonly #end = this.#buffer.byteLength - SLACK;
  /** Live tensors in ascending order. */
  readonly #live: Block[] = [];
  /**
   * The addresses of the views that `allocate` made, until they are given back. Looking here is faster than asking an
   * array for its buffer and searching for the tensor.
   */
  readonly #addresses = new WeakMap<Float32Array, number>();
  #anyTensor = false;
  #turn = 0;

  constructor(bytes: number, shared?: boolean) {
    super(checkBytes(bytes), shared);
    const { at } = this.streams[0]!;
    const both = slotOf(at, new Float32Array(this.#buffer, at, 2 * STREAM_FLOATS));
    this.slots = this.#trainingSlots();
    this.scratch = this.place(6 * (MAX_COLUMNS * 4 + STAGGER)) as At<"scratch">;
    this.streams = [both, this.streams[1]!, this.float32(STREAM_FLOATS)];
    this.#tensors = alignUp(this.place(0), 64);
    const { at: last } = this.streams[RESIDUAL]!;
    this.bits = slotOf(last, new Uint8Array(this.#buffer, last, 4 * STREAM_FLOATS));
  }

  #trainingSlots(): TrainingSlots {
    const float32 = <What extends string>() => this.float32<What>(MAX_COLUMNS);
    const float64 = <What extends string>(): Doubles<What> => {
      const at = this.place(MAX_COLUMNS * 8);
      return slotOf(at, new Float64Array(this.#buffer, at, MAX_COLUMNS));
    };
    return {
      base: float32(),
      gamma: float32(),
      beta: float32(),
      dgamma: float32(),
      dbeta: float32(),
      offset: float64(),
      m2: float64(),
      mean: float64(),
      meanLow: float64(),
      variance: float64(),
      runningMean: float64(),
      runningVariance: float64(),
      sumDy: float64(),
      sumDyX: float64(),
    };
  }

  /** A tensor of `length` values, zeroed, in the first gap that holds it. */
  allocate(length: number): Float32Array<ArrayBuffer> {
    if (!isWhole(length)) {
      throw new OptionError("length", "a whole number of values >= 0", describe(length));
    }
    // Large tensors are moved against their neighbours (STAGGER) by whole cache lines, if there is room.
    const bytes = length * 4;
    const lead = bytes >= 16384 ? (this.#turn = (this.#turn + 320) % 4096) : 0;
    const view = this.#place(lead, bytes) ?? this.#place(0, bytes);
    if (view === undefined) {
      throw new MemoryError(
        "length",
        `to fit into ${this.bytes} bytes of kernel memory, of which ${this.freeBytes} are free`,
        `${length} values of 4 bytes; for more: the option memory`,
      );
    }
    return view;
  }

  /** Where the first gap of at least `size` bytes between tensors begins; 0 if there is none. */
  protected gap(size: number): number {
    let start = this.#tensors;
    for (const block of this.#live) {
      if (block.start - start >= size) break;
      start = block.end;
    }
    return start + size > this.#end ? 0 : start;
  }

  /** Takes the first gap that holds `bytes` behind `lead` and zeroes them, if there is one. */
  #place(lead: number, bytes: number): Float32Array<ArrayBuffer> | undefined {
    const size = alignUp(lead + Math.max(bytes, 1), 64);
    const start = this.gap(size);
    if (start === 0) return undefined;
    const at = start + lead;
    const view = new Float32Array(this.#buffer, at, bytes / 4).fill(0);
    this.#live.push({ start, end: start + size, from: at, to: at + bytes, view });
    this.#live.sort((a, b) => a.start - b.start);
    this.#addresses.set(view, at);
    this.#anyTensor = true;
    return view;
  }

  /** Gives a tensor back: the very view that `allocate` returned. */
  release(view: Float32Array): void {
    const index = this.#live.findIndex((block) => block.view === view);
    if (index < 0) {
      const own = bufferOf(view) === this.#buffer;
      throw new StateError(
        "view",
        "a tensor as alloc returned it",
        own ? "one that is freed already or a part" : "an array of other memory",
      );
    }
    this.#live.splice(index, 1);
    this.#addresses.delete(view);
    freed.add(view);
    anyFreed = true;
  }

  /** Size of the memory. */
  get bytes(): number {
    return this.#buffer.byteLength;
  }

  /** Bytes that tensors do not use. */
  get freeBytes(): number {
    return this.#live.reduce(
      (sum, block) => sum + block.start - block.end,
      this.#end - this.#tensors,
    );
  }

  override addressOf(name: string, array: Float32Array): number {
    // Until the first tensor has been allocated, nobody has a view of this memory.
    const known = this.#anyTensor ? this.#addresses.get(array) : undefined;
    if (known !== undefined) return known;
    if (!anyFreed || !freed.has(array)) {
      if (!this.#anyTensor || bufferOf(array) !== this.#buffer) return -1;
      // The array is no tensor but may be a part of one. If so, it lies inside a tensor that is in use.
      const from = offsetOf(array);
      const to = from + lengthOf(array) * 4;
      if (this.#live.some((block) => block.from <= from && to <= block.to)) return from;
    }
    throw new StateError(
      name,
      "a tensor of kernel memory in use",
      "one that is freed, or no tensor",
    );
  }
}

const alignUp = (n: number, step: number): number => Math.ceil(n / step) * step;

/** The size of a memory that a user asks for, in whole pages. Throws OptionError if there is none of that size. */
export function checkBytes(bytes: unknown): number {
  if (!isWhole(bytes, MIN_BYTES, MAX_BYTES)) {
    throw new OptionError("memory", `${MIN_BYTES} to ${MAX_BYTES} bytes`, describe(bytes));
  }
  return alignUp(bytes, PAGE);
}
