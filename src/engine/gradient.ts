// dy, x -> dx, dgamma, dbeta (Ioffe & Szegedy 2015, section 3). See assembly/gradient.ts for the formulas.

import type { Limits } from "../values/activation.js";
import { copy } from "../values/arrays.js";
import { countOf, sizeOf, type View } from "../values/layout.js";
import type { Selection } from "../values/mask.js";
import { GradientSums } from "../values/moments.js";
import {
  type Bits,
  type Correction,
  type Gradients,
  inverseDeviation,
  type Normalizer,
  scaleOf,
} from "../values/terms.js";
import { bring, usable } from "./bits.js";
import { loadChannels, loadNormalizer, spread, storeChannels, termsOfRow } from "./channel.js";
import { type Machine, machineFor } from "./machine.js";
import { type At, firstOf, type Memory, RESIDUAL, STREAM_FLOATS } from "./memory.js";
import { inParts, loadHeld, notHeld, operand, storeHeld } from "./operand.js";
import { channelsNear, isNear, type Pass, passOf, rowsOfTwo, walkOf } from "./plan.js";
import { load, type Steps, store, walkNear, walkTile } from "./walk.js";

/** Pools the columns of rows taken several at once. */
function merge({ machine: { wasm, memory }, repeats }: Pass<Machine>, _: number, width: number) {
  for (const { at } of [memory.slots.sumDy, memory.slots.sumDyX]) {
    wasm.mergeSums(at, width, 1, repeats, width);
  }
}

/** Where the gated dy is written: to `out` or, without one, over dy. If nothing is gated, `out` is not there either. */
const gatedAt = (pass: Pass<Machine>, out: At<"out">, dy: At<"a">): At<"out"> =>
  pass.out === null ? (dy as number as At<"out">) : out;

/** The limits of a pass that gates nothing, as kernels know them. */
const UNGATED: Limits = { low: NaN, high: NaN };
/** And those of one that gates rows by bits: kernels then take the address of the residual for that of the bits. */
const BY_BITS: Limits = { low: 1, high: 0 };

/** Adds up dy, which is gated before that, or as it is added up, if the pass has limits. */
const SUMS: Steps<Machine> = {
  block: rowsOfTwo,
  merge,
  // Several threads cut them anyway, and wait for each other less often if they are not cut here.
  most: (pass) => (pass.limits === null || pass.machine.threads! > 1 ? 0 : STREAM_FLOATS),
  rows(pass, out, dy, x, add, count, rows, width, stride) {
    const { wasm, memory } = pass.machine;
    const bits = bring(pass, rows * width);
    const { low, high } = bits ? BY_BITS : (pass.limits ?? UNGATED);
    const { sumDy, sumDyX } = memory.slots;
    wasm.gradientSumsRows(
      sumDy.at,
      sumDyX.at,
      memory.scratch,
      gatedAt(pass, out, dy),
      dy,
      x,
      bits || add,
      termsOfRow(pass),
      low,
      high,
      count,
      rows,
      width,
      stride,
      width,
    );
  },
  planes(pass, out, dy, x, add, count, first, planes, channels, inner) {
    const { wasm, memory } = pass.machine;
    const { sumDy, sumDyX } = memory.slots;
    const terms = memory.terms.at;
    const g = gatedAt(pass, out, dy);
    const bits = bring(pass, planes * inner);
    if (pass.limits !== null && !bits) {
      const { low, high } = pass.limits;
      wasm.gatePlanes(g, dy, x, add, terms, low, high, first, planes, channels, inner);
      dy = g as number as At<"a">;
    }
    wasm.gradientSumsPlanes(
      sumDy.at,
      sumDyX.at,
      g,
      dy,
      x,
      terms,
      bits,
      count,
      first,
      planes,
      channels,
      inner,
    );
  },
};

const GRADIENT: Steps<Machine> = {
  rows(pass, dx, dy, x, _c, _count, rows, width, stride) {
    const { wasm } = pass.machine;
    const kernel = pass.cold ? wasm.gradientSweep : wasm.gradientStrips;
    kernel(dx, dy, x, termsOfRow(pass), rows, width, stride);
  },
  planes({ machine: { wasm, memory } }, dx, dy, x, _c, _count, first, planes, channels, inner) {
    wasm.gradientPlanes(dx, dy, x, memory.terms.at, first, planes, channels, inner);
  },
};

/**
 * Leaves Σdy and Σdy·(x - center) of each channel of a tile in kernel memory; of the gated dy if the pass has limits.
 * `loaded` says that its tensors lie in the stream buffers already.
 */
function tileSums(pass: Pass<Machine>, first: number, n: number, loaded: boolean): void {
  const { wasm, memory } = pass.machine;
  const { sumDy, sumDyX } = memory.slots;
  const { inner } = pass.view;
  if (sizeOf(pass.view) === 0) {
    sumDy.array.fill(0);
    sumDyX.array.fill(0);
    return;
  }
  spread(pass, pass.limits === null ? ["center"] : ["center", "scale", "shift"], n);
  if (loaded) walkNear(pass, SUMS, n);
  else walkTile(pass, SUMS, first, n);
  if (pass.rows && inner > 1) {
    for (const { at } of [sumDy, sumDyX]) wasm.mergeSums(at, n, inner, inner, 1);
  }
}

/**
 * Works out the terms of a tile's gradient from its sums and its mean, which lie in kernel memory, and
 * stores dgamma and dbeta.
 */
function tileTerms(
  { wasm, memory }: Machine,
  into: Gradients,
  normalizer: Normalizer,
  perValue: number,
  first: number,
  n: number,
): void {
  const { slots, terms } = memory;
  const { dgamma, dbeta, sumDy, sumDyX, mean } = slots;
  wasm.gradientTerms(
    terms.at,
    dgamma.at,
    dbeta.at,
    sumDy.at,
    sumDyX.at,
    mean.at,
    loadChannels(slots.variance, normalizer.variance, first, n),
    loadChannels(slots.gamma, normalizer.gamma, first, n),
    normalizer.epsilon,
    perValue,
    n,
  );
  if (normalizer.correction !== null) correct(memory, normalizer, normalizer.correction, first, n);
  // If statistics are constants, dx does not depend on the sums. They may be infinite, and 0 times that is NaN.
  if (perValue === 0) for (const zero of [terms.shift, terms.slope]) firstOf(zero, n).fill(0);
  storeChannels(into.dgamma, dgamma, first, n);
  storeChannels(into.dbeta, dbeta, first, n);
}

/**
 * Of a layer with batch renormalization: dgamma = r·Σdy·x̂ + d·Σdy, and dx has the scale γ·r/√(σ² + ε) (Ioffe 2017,
 * section 3). Its other terms do not change.
 */
function correct(
  { slots, terms }: Memory,
  normalizer: Normalizer,
  { r, d }: Correction,
  first: number,
  n: number,
): void {
  const { mean, sumDy, sumDyX, dgamma } = slots;
  for (let i = 0; i < n; i++) {
    const c = first + i;
    const [m, sum] = [mean.array[i]!, sumDy.array[i]!];
    const product = sumDyX.array[i]! - (m - Math.fround(m)) * sum;
    terms.scale.array[i] = scaleOf(normalizer, c);
    dgamma.array[i] = r[c]! * product * inverseDeviation(normalizer, c) + d[c]! * sum;
  }
}

/**
 * The gradient of a layer that normalized x. `perValue` is the weight that each value has in the statistics: 1/m, or
 * 0 if they are constants. `kept` are the bits that `train` kept, if it kept any; with them, add is not read. If x is only
 * a part of a batch, `sums` are those of the whole batch. dx may be dy. Throws StateError for a freed tensor before
 * anything is written.
 */
export function computeGradients(
  machine: Machine,
  into: Gradients,
  dy: Float32Array,
  x: Float32Array,
  view: View,
  normalizer: Normalizer,
  selection: Selection | null,
  perValue: number,
  sums: GradientSums | null,
  add: Float32Array | null,
  kept: Bits | null | undefined,
): void {
  // Without an activation, dadd is dy, and nothing is gated.
  const { limits } = normalizer;
  add = limits && add;
  machine = machineFor(machine, into.dx, x, add, 2 * +!selection, dy);
  const { wasm, memory } = machine;
  const { terms, slots } = memory;
  let a = operand(memory, "dy", dy, 1, view, selection);
  let b = operand(memory, "x", x, 0, view, selection);
  let c = add && operand(memory, "add", add, RESIDUAL, view, selection);
  let dx = operand(memory, "out.dx", into.dx, 1, view, selection);
  let dadd = into.dadd && operand(memory, "out.dadd", into.dadd, 1, view, selection);
  // dy, the gated dy and dx have one stream buffer, where each takes the place of the one before it. Where the channels
  // go in tiles, none is held there, since dx of a tile would lie beside dadd of the next one. Nor is x, since parts of
  // it come to its buffer if the residual goes in parts.
  if (dadd !== null && walkOf(view).tile < view.channels) {
    [a, b, dx, dadd] = [notHeld(a), notHeld(b), notHeld(dx), notHeld(dadd)];
    c &&= notHeld(c);
  }
  // The first traversal writes the gated dy, and the second one reads it: dadd itself, or what becomes dx.
  const g = limits === null ? null : (dadd ?? dx);
  // dgamma and dbeta are stored by copying, so their addresses are not needed; but asking for them throws if they
  // are freed tensors.
  if (into.dgamma !== null) memory.addressOf("out.dgamma", into.dgamma);
  if (into.dbeta !== null) memory.addressOf("out.dbeta", into.dbeta);
  if (limits === null) {
    if (into.dadd !== null) copy(into.dadd, dy);
    dadd = null;
  }
  const sumsX = sums && aboutCenter(sums, normalizer.mean, 1);
  const bits = usable(kept, machine, normalizer);
  if (bits) c = null;
  loadHeld(a);
  loadHeld(b);
  if (c) loadHeld(c);
  const reading = passOf(machine, view, selection, g, a, b, limits, c, true);
  const writing = passOf(machine, view, selection, dx, g ?? a, b);
  reading.bits = bits;
  const { outer, channels, inner } = view;
  const near = add === null && isNear(writing, dx, a, b);
  const tile = near ? Math.min(channelsNear(view), writing.tile) : writing.tile;
  // If so, the tensors are loaded into the stream buffers once, and both traversals read them there.
  const loaded = near && writing.streamed;
  if (near && !loaded && sums === null && machine.near?.(writing, a, into, normalizer, perValue)) {
    machine.leave?.();
    return;
  }
  for (let first = 0; first < channels; first += tile) {
    const n = Math.min(tile, channels - first);
    const part = { at: first * inner, rows: outer, width: n * inner, pitch: channels * inner };
    if (g === null) {
      wasm.roundMeans(terms.at, loadChannels(slots.mean, normalizer.mean, first, n), n);
    } else loadNormalizer(machine, normalizer, first, n);
    if (loaded) load(reading, part);
    if (g !== null || sums === null) tileSums(reading, first, n, loaded);
    if (dadd !== null) storeHeld(dadd);
    if (sums !== null) {
      loadChannels(slots.sumDy, sums.sumDy, first, n);
      loadChannels(slots.sumDyX, sumsX, first, n);
    }
    tileTerms(machine, into, normalizer, perValue, first, n);
    if (loaded) {
      walkNear(writing, GRADIENT, n);
      store(writing, part);
    } else {
      spread(writing, ["center", "scale", "shift", "slope"], n);
      walkTile(writing, GRADIENT, first, n);
    }
  }
  storeHeld(dx);
  machine.leave?.();
  selection?.pad(into.dx, null);
  if (into.dadd !== null) selection?.pad(into.dadd, null);
}

/** Σdy and Σdy·(x - mean) over x, which is a batch or a part of one and was normalized with `mean`. */
export function computeSums(
  machine: Machine,
  dy: Float32Array,
  x: Float32Array,
  view: View,
  normalizer: Normalizer,
  selection: Selection | null,
  add: Float32Array | null,
): GradientSums {
  machine = machineFor(machine, dy, x, add);
  const { wasm, memory } = machine;
  const { terms, slots } = memory;
  const { mean, limits } = normalizer;
  const dyOperand = operand(memory, "dy", dy, 1, view, selection);
  // The gated dy is written to where dy lies, so dy has to be a copy.
  const a = limits === null ? dyOperand : inParts(dyOperand);
  const b = operand(memory, "x", x, 0, view, selection);
  const c = add && limits && operand(memory, "add", add, RESIDUAL, view, selection);
  const array = (): Float64Array => new Float64Array(view.channels);
  const result = new GradientSums(countOf(view), array(), array());
  loadHeld(a);
  loadHeld(b);
  if (c) loadHeld(c);
  const pass = passOf(machine, view, selection, null, a, b, limits, c);
  const { tile } = pass;
  for (let first = 0; first < view.channels; first += tile) {
    const n = Math.min(tile, view.channels - first);
    if (limits === null) {
      wasm.roundMeans(terms.at, loadChannels(slots.mean, mean, first, n), n);
    } else loadNormalizer(machine, normalizer, first, n);
    tileSums(pass, first, n, false);
    storeChannels(result.sumDy, slots.sumDy, first, n);
    storeChannels(result.sumDyXmu, slots.sumDyX, first, n);
  }
  result.sumDyXmu.set(aboutCenter(result, mean, -1));
  return result;
}

/** Turns Σdy·(x - mean) into Σdy·(x - float32(mean)), which is what kernels work with; with sign -1, back again. */
const aboutCenter = (
  { sumDy, sumDyXmu }: GradientSums,
  mean: Float64Array,
  sign: 1 | -1,
): Float64Array =>
  sumDyXmu.map((sum, c) => sum + sign * (mean[c]! - Math.fround(mean[c]!)) * sumDy[c]!);
