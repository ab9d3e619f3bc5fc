// A bit for each value of y, which `train` keeps where a residual and a ReLU follow: whether the value is above 0. Then
// `backward` reads these instead of the residual. See assembly/bits.ts.

import { copy } from "../values/arrays.js";
import { sizeOf } from "../values/layout.js";
import type { Bits, Normalizer } from "../values/terms.js";
import { termsOfRow } from "./channel.js";
import type { Machine } from "./machine.js";
import { type At, firstOf, NOWHERE, STREAM_FLOATS } from "./memory.js";
import type { Pass } from "./plan.js";
import type { Steps } from "./walk.js";

/**
 * Where a `train` is to keep bits: in `old` ones that are as many, or in new ones. `null` if it is to keep none: there is
 * more to its values than a residual and a ReLU, or they do not come in sixteens, or the machine has several threads.
 */
export function bitsFor(
  { machine, view, rows, tile, b }: Pass<Machine>,
  { limits, gamma, beta }: Normalizer,
  old: Bits | null,
): Bits | null {
  const { channels, inner } = view;
  const run = rows ? channels * inner : inner;
  const isRelu = limits?.low === 0 && limits.high === Infinity;
  if (!b || !isRelu || run % 16 !== 0 || tile < channels || machine.threads! > 1) return null;
  const bytes = sizeOf(view) / 8;
  const bits =
    old?.array.length === bytes
      ? old
      : {
          array: new Uint8Array(bytes),
          at: 0,
          gamma: new Float32Array(channels),
          beta: new Float32Array(channels),
        };
  bits.at = 0;
  if (gamma !== null) copy(bits.gamma, gamma);
  if (beta !== null) copy(bits.beta, beta);
  return bits;
}

/** A loop, since `every` takes 1 µs for 128 values. */
function isSame(kept: Float32Array, now: Float32Array | null): boolean {
  if (now !== null) for (let c = 0; c < kept.length; c++) if (kept[c] !== now[c]) return false;
  return true;
}

/** The bits of a `train` from the first one on; `null` if there are none, or if `backward` cannot use them. */
export function usable(
  bits: Bits | null | undefined,
  { threads }: Machine,
  { gamma, beta }: Normalizer,
): Bits | null {
  if (!bits || threads! > 1 || bits.at !== 8 * bits.array.length) return null;
  if (!isSame(bits.gamma, gamma) || !isSame(bits.beta, beta)) return null;
  bits.at = 0;
  return bits;
}

/** Takes the bits of the next `n` values out of kernel memory. `endless`: one of these above 0 is not finite. */
function take({ machine: { memory }, bits }: Pass<Machine>, n: number, endless: number): void {
  copy(bits!.array, firstOf(memory.bits, n / 8), bits!.at / 8);
  bits!.at += endless ? NaN : n;
}

/** Brings the bits of the next `n` values into kernel memory, if there are any, and returns their address. */
export function bring({ machine: { memory }, bits }: Pass<Machine>, n: number): At<"bits"> {
  if (bits === null) return NOWHERE;
  const { array, at } = bits;
  bits.at += n;
  copy(memory.bits.array, n === 8 * array.length ? array : array.subarray(at / 8, bits.at / 8));
  return memory.bits.at;
}

/** y = max((x - center)·scale + shift + add, 0), whose bits are kept. */
export const KEEPING: Steps<Machine> = {
  most: () => 32 * STREAM_FLOATS,
  rows(pass, y, x, add, _c, _count, rows, width) {
    const { wasm, memory } = pass.machine;
    const endless = wasm.keepRows(y, memory.bits.at, x, add, termsOfRow(pass), rows, width);
    take(pass, rows * width, endless);
  },
  planes(pass, y, x, add, _c, _count, first, planes, channels, inner) {
    const { wasm, memory } = pass.machine;
    const { terms, bits } = memory;
    const { keepPlanes: keep } = wasm;
    const endless = keep(y, bits.at, x, add, terms.at, first, planes, channels, inner);
    take(pass, planes * inner, endless);
  },
};
