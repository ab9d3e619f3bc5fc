// What is wrong with the numbers of a batch-norm layer, as far as the numbers alone show it. (How well they fit
// data is what `diagnose` says; that needs data.)

import type { BatchNorm } from "../index.js";

/**
 * How bad a finding is. With an `"error"`, test time gives NaN or fails; with a `"warning"`, it gives numbers
 * that are probably not those that the network was trained for.
 */
export type Severity = "error" | "warning";

interface Fault {
  readonly severity: Severity;
  /** What was found, in a few words. */
  readonly title: string;
  /** What it means for the outputs. */
  readonly meaning: string;
}

/**
 * All that can be found. The limit for a variance that is small against epsilon is epsilon itself, as for
 * `diagnose`: the outputs then spread by √(variance/(variance + ε)) of gamma, which is below 1/√2 from there on.
 */
export const FAULTS = {
  "variance-not-finite": {
    severity: "error",
    title: "running variance NaN or infinite",
    meaning: "test time fails",
  },
  "variance-negative": {
    severity: "error",
    title: "running variance below 0",
    meaning: "test time fails; no variance is negative",
  },
  "mean-not-finite": {
    severity: "error",
    title: "running mean NaN or infinite",
    meaning: "the channel's outputs are not numbers",
  },
  "gamma-not-finite": {
    severity: "error",
    title: "gamma NaN or infinite",
    meaning: "the channel's outputs are not numbers",
  },
  "beta-not-finite": {
    severity: "error",
    title: "beta NaN or infinite",
    meaning: "the channel's outputs are not numbers",
  },
  "averages-initial": {
    severity: "warning",
    title: "running averages still the initial 0 and 1",
    meaning: "the layer was never trained, or its averages were not saved",
  },
  "age-zero": {
    severity: "warning",
    title: "counter of mini-batches at 0",
    meaning: "no mini-batch entered the averages, or the counter was set back",
  },
  "age-unknown": {
    severity: "warning",
    title: "counter of mini-batches missing or unreadable",
    meaning: "PyTorch would count again from 0",
  },
  "variance-zero": {
    severity: "warning",
    title: "running variance 0",
    meaning:
      "the channel never varied in training; any deviation at test time is magnified by 1/√ε",
  },
  "variance-tiny": {
    severity: "warning",
    title: "running variance below epsilon",
    meaning: "epsilon outweighs it, so outputs spread by less than 1/√2 of gamma",
  },
  "gamma-zero": {
    severity: "warning",
    title: "gamma 0",
    meaning: "the channel's output is beta, whatever comes in",
  },
} as const satisfies Readonly<Record<string, Fault>>;

/** A word for what was found. */
export type FindingKind = keyof typeof FAULTS;

/** Something that is wrong with a layer. */
export interface Finding {
  readonly kind: FindingKind;
  readonly severity: Severity;
  /** The channels with this fault, `null` if it is one of the whole layer. */
  readonly channels: readonly number[] | null;
}

const KINDS = Object.keys(FAULTS) as FindingKind[];

/**
 * What is wrong with a layer, in the order of {@link FAULTS}; nothing if all is well.
 *
 * @param counts whether files of this kind count mini-batches. In others, that the age is unknown is no fault.
 */
export function findingsOf(layer: BatchNorm, counts: boolean): Finding[] {
  const channels = new Map<FindingKind, number[]>();
  for (let c = 0; c < layer.channels; c++) {
    for (const kind of faultsOf(layer, c)) {
      const found = channels.get(kind);
      if (found === undefined) channels.set(kind, [c]);
      else found.push(c);
    }
  }
  const whole = wholeFaultsOf(layer, counts);
  return KINDS.filter((kind) => channels.has(kind) || whole.includes(kind)).map((kind) => ({
    kind,
    severity: FAULTS[kind].severity,
    channels: channels.get(kind) ?? null,
  }));
}

/** What is wrong with one channel. */
function faultsOf(layer: BatchNorm, c: number): FindingKind[] {
  const { gamma, beta, epsilon } = layer;
  const [mean, variance] = [layer.runningMean[c]!, layer.runningVariance[c]!];
  const found: FindingKind[] = [];
  if (!Number.isFinite(variance)) found.push("variance-not-finite");
  else if (variance < 0) found.push("variance-negative");
  else if (variance === 0) found.push("variance-zero");
  else if (variance < epsilon) found.push("variance-tiny");
  if (!Number.isFinite(mean)) found.push("mean-not-finite");
  if (gamma !== null && !Number.isFinite(gamma[c]!)) found.push("gamma-not-finite");
  if (gamma !== null && gamma[c] === 0) found.push("gamma-zero");
  if (beta !== null && !Number.isFinite(beta[c]!)) found.push("beta-not-finite");
  return found;
}

/** What is wrong with a layer as a whole. */
function wholeFaultsOf(layer: BatchNorm, counts: boolean): FindingKind[] {
  const { runningMean, runningVariance, batchesSeen, ageKnown } = layer;
  const found: FindingKind[] = [];
  if (runningMean.every((v) => v === 0) && runningVariance.every((v) => v === 1)) {
    found.push("averages-initial");
  }
  if (counts && !ageKnown) found.push("age-unknown");
  if (ageKnown && batchesSeen === 0) found.push("age-zero");
  return found;
}
