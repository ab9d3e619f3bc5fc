// Where a tensor of a call lies: in kernel memory, where kernels work in place; held as a whole in a
// stream buffer; or in parts, which go through the stream buffer one after the other.

import { copy, part } from "../values/arrays.js";
import { sizeOf, type View } from "../values/layout.js";
import type { Selection } from "../values/mask.js";
import { type At, type Buffers, firstOf, NOWHERE, type Slot, STREAM_FLOATS } from "./memory.js";

/** A tensor that a kernel reads or writes. */
export interface Operand {
  readonly array: Float32Array;
  /** Where the kernel finds its first value: the tensor itself, or its stream buffer. */
  readonly base: number;
  /** Bytes from a value to the next; 0 if it goes in parts, each of which begins at `base`. */
  readonly unit: 0 | 4;
  readonly stream: Slot<Float32Array>;
  /** How many values it has. It is not asked for this again: another thread may let a shared array grow. */
  readonly size: number;
}

/**
 * The operand that an argument of a call is, seen as `view`. `index` says which stream buffer it has if it needs one.
 * Throws StateError for a tensor that is freed.
 */
export function operand(
  memory: Buffers,
  name: string,
  array: Float32Array,
  index: number,
  view: View,
  selection: Selection | null,
): Operand {
  const size = sizeOf(view);
  const stream = memory.streams[index]!;
  const own = memory.addressOf(name, array);
  const inPlace = !selection && own >= 0;
  const held = !selection && size <= (memory.most ?? STREAM_FLOATS);
  return {
    array,
    base: inPlace ? own : stream.at,
    unit: inPlace || held ? 4 : 0,
    stream,
    size,
  };
}

/** Whether the stream buffer holds all of a tensor during the call: an ordinary array that fits it. */
const isHeld = ({ base, unit, stream }: Operand): boolean => unit === 4 && base === stream.at;

/** Loads an input that is held, once for all traversals of a call. */
export function loadHeld(operand: Operand): void {
  const { array, stream, size } = operand;
  // The stream buffer of several threads has no room beyond `size`, by which a shared array may grow meanwhile.
  if (isHeld(operand)) copy(stream.array, size > STREAM_FLOATS ? part(array, 0, size) : array);
}

/** Stores an output that is held. */
export function storeHeld(operand: Operand): void {
  const { array, stream, size } = operand;
  if (isHeld(operand)) copy(array, firstOf(stream, size));
}

/** The same operand, but loaded and stored in parts. */
export const inParts = (o: Operand): Operand => ({ ...o, base: o.stream.at, unit: 0 });

/** The same operand, but in parts if it was held. */
export const notHeld = (o: Operand): Operand => (isHeld(o) ? inParts(o) : o);

/** Where a kernel finds the value of this index. If the tensor goes in parts, that is where every part begins. */
export const pointer = <What extends "out" | "a" | "b" | "c">(
  o: Operand | null,
  index: number,
): At<What> => (o ? ((o.base + index * o.unit) as At<What>) : NOWHERE);
