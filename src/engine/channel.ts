// The work that is done once per channel: copies parameters and statistics of a tile of channels into kernel memory
// and back, works out terms from them, and moves running averages. See assembly/channel.ts for the formulas.

import { copy, lengthOf, part } from "../values/arrays.js";
import {
  type AffineTerms,
  type AverageUpdate,
  checkVariance,
  type Normalizer,
  type Statistics,
  writeTerms,
} from "../values/terms.js";
import type { AffineMachine, Machine } from "./machine.js";
import { type At, firstOf, MAX_COLUMNS, NOWHERE, type Slot } from "./memory.js";
import type { Pass } from "./plan.js";

/** Loads `n` values of an array, those of channel `first` and on. Returns NOWHERE if there is no array. */
export function loadChannels<A extends Float32Array | Float64Array, What extends string>(
  slot: Slot<A, What>,
  array: A | null,
  first: number,
  n: number,
): At<What> {
  if (array === null) return NOWHERE;
  copy(slot.array, n === lengthOf(array) ? array : part(array, first, first + n));
  return slot.at;
}

/** Stores the values of a slot into an array, where those of channel `first` begin; nothing if there is no array. */
export function storeChannels<A extends Float32Array | Float64Array>(
  array: A | null,
  slot: Slot<A>,
  first: number,
  n: number,
): void {
  if (array !== null) copy(array, firstOf(slot, n), first);
}

/**
 * Works out the terms of a tile whose mean and variance lie in kernel memory. `meanLow` is the address of what
 * float64 rounds off the mean. Throws StateError for an invalid variance.
 */
export function computeTerms(
  { wasm, memory }: Machine,
  normalizer: Normalizer,
  meanLow: At<"meanLow">,
  first: number,
  n: number,
): void {
  const { slots, terms } = memory;
  const { mean, variance } = slots;
  const gamma = loadChannels(slots.gamma, normalizer.gamma, first, n);
  const beta = loadChannels(slots.beta, normalizer.beta, first, n);
  const { epsilon } = normalizer;
  const bad = wasm.scaleShift(terms.at, mean.at, meanLow, variance.at, gamma, beta, epsilon, n);
  if (bad < n) checkVariance(normalizer.variance, first + bad);
}

/** Loads mean and variance of a tile and works out its terms. Throws StateError for an invalid variance. */
export function loadNormalizer(
  machine: Machine,
  normalizer: Normalizer,
  first: number,
  n: number,
): void {
  if (normalizer.correction !== null) {
    loadChannels(machine.memory.slots.mean, normalizer.mean, first, n);
    const { center, scale, shift } = machine.memory.terms;
    const terms = { center: center.array, scale: scale.array, shift: shift.array };
    writeTerms(terms, normalizer, first, n);
    return;
  }
  const { mean, meanLow, variance } = machine.memory.slots;
  loadChannels(mean, normalizer.mean, first, n);
  loadChannels(variance, normalizer.variance, first, n);
  computeTerms(machine, normalizer, loadChannels(meanLow, normalizer.meanLow, first, n), first, n);
}

/** Loads the terms of a tile, which are worked out already. */
export function loadTerms(
  { memory: { terms } }: AffineMachine,
  { center, scale, shift }: AffineTerms,
  first: number,
  n: number,
): void {
  loadChannels(terms.center, center, first, n);
  loadChannels(terms.scale, scale, first, n);
  loadChannels(terms.shift, shift, first, n);
}

/** The address of the terms of the columns of a row. */
export const termsOfRow = ({ machine: { memory }, columns }: Pass<AffineMachine>): At<"terms"> =>
  (columns ? memory.columns : memory.terms).at;

/** Repeats the terms of the channels for all columns of a row, if a row has several columns per channel. */
export function spread(
  pass: Pick<Pass<AffineMachine>, "machine" | "view" | "repeats" | "columns">,
  names: readonly ("center" | "scale" | "shift" | "slope")[],
  n: number,
): void {
  if (!pass.columns) return;
  const { wasm, memory } = pass.machine;
  for (const name of names) {
    wasm.spread(memory.columns[name].at, memory.terms[name].at, n, pass.view.inner, pass.repeats);
  }
}

/** Moves running averages towards the mean and variance of the tile that lies in kernel memory. */
export function moveTile(
  { wasm, memory }: Machine,
  update: AverageUpdate,
  first: number,
  n: number,
): void {
  const { mean, variance, runningMean, runningVariance } = memory.slots;
  const { weight, bessel } = update;
  wasm.moveRunning(
    loadChannels(runningMean, update.runningMean, first, n),
    loadChannels(runningVariance, update.runningVariance, first, n),
    mean.at,
    variance.at,
    weight,
    bessel,
    n,
  );
  storeChannels(update.runningMean, runningMean, first, n);
  storeChannels(update.runningVariance, runningVariance, first, n);
}

/** Moves running averages towards the statistics of a batch that were gathered elsewhere. */
export function moveAverages(machine: Machine, update: AverageUpdate, batch: Statistics): void {
  const { slots } = machine.memory;
  for (let first = 0; first < batch.mean.length; first += MAX_COLUMNS) {
    const n = Math.min(MAX_COLUMNS, batch.mean.length - first);
    loadChannels(slots.mean, batch.mean, first, n);
    loadChannels(slots.variance, batch.variance, first, n);
    moveTile(machine, update, first, n);
  }
}
