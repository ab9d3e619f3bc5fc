/** What the network says of one digit, by running averages and by a mini-batch, and why. */

import {
  BatchNorm,
  FrozenBatchNorm,
  type FrozenJSON,
  SingleValueError,
  type Snapshot,
} from "batchnorm-wasm";
import { CLASSES, type Digits, inOrder, PIXELS, pixels } from "../../mnist/digits.js";
import type { Layer } from "../../mnist/layers.js";
import { shift } from "../../mnist/shift.js";
import { byMiniBatch, byRunningAverages, logits, type Normalize, softmax } from "./network.js";

/** A network as test time uses it. */
export interface Model {
  readonly layers: readonly Layer[];
  /** Stand-ins for the norms, adapted to shifted digits; `null`: the norms themselves. */
  readonly adapted: readonly Adapted[] | null;
}

/** A norm adapted to shifted digits. */
export interface Adapted {
  readonly frozen: FrozenBatchNorm;
  /** The same without γ and β: x̂. */
  readonly standard: FrozenBatchNorm;
}

/** The network as numbers, for another thread. */
export interface NetworkState {
  readonly layers: readonly (Omit<Layer, "norm"> & { readonly norm: Snapshot | null })[];
  readonly adapted:
    | readonly { readonly frozen: FrozenJSON; readonly standard: FrozenJSON }[]
    | null;
  /** Whether it began untrained, here. */
  readonly own: boolean;
  /** Mini-batches trained here. */
  readonly step: number;
}

/** The network that the numbers are of. */
export function modelOf({ layers, adapted }: NetworkState): Model {
  return {
    layers: layers.map((one) => ({ ...one, norm: one.norm && BatchNorm.fromSnapshot(one.norm) })),
    adapted:
      adapted?.map(({ frozen, standard }) => ({
        frozen: FrozenBatchNorm.fromJSON(frozen),
        standard: FrozenBatchNorm.fromJSON(standard),
      })) ?? null,
  };
}

/** What one layer was given and gave for the digit, [channels] each. */
export interface Passage {
  readonly before: Float32Array;
  readonly after: Float32Array;
  /** What it was normalized by: mean, and √(variance + ε). */
  readonly mean: ArrayLike<number>;
  readonly deviation: ArrayLike<number>;
}

/** One way of normalizing, and what comes of it. */
export interface Answer {
  /** Of the ten classes. */
  readonly probabilities: Float32Array;
  /** The class with the highest. */
  readonly digit: number;
  readonly passages: readonly Passage[];
}

export interface Answers {
  readonly running: Answer;
  readonly miniBatch: Answer;
  /** What the package says to a mini-batch of one, if it is one. */
  readonly refusal: string | null;
}

/** The norms as they are, or adapted. */
export const testTime = ({ adapted }: Model): Normalize =>
  adapted === null ? byRunningAverages : (_norm, x, index) => adapted[index].frozen.infer(x);

/** A digit's noise is always the same, so that an answer depends on the digit alone. */
const SEED = 1;

/** One digit of grey values, as the network gets it: [784], 0 … 1. */
export function inputOf(image: Uint8Array, strength: number): Float32Array {
  const digit = { count: 1, images: image, labels: new Uint8Array(1) };
  return pixels(strength === 0 ? digit : shift(digit, SEED, strength), Uint32Array.of(0));
}

/** The first `count` digits, as the network gets them: [count, 784], 0 … 1. */
export function inputsOf(digits: Digits, strength: number, count = digits.count): Float32Array {
  if (count === 0) return new Float32Array(0);
  const few = { ...digits, count, images: digits.images.subarray(0, count * PIXELS) };
  const [all] = inOrder(few, count);
  return pixels(strength === 0 ? few : shift(few, SEED + 1, strength), all);
}

/**
 * @param input the digit, [784]
 * @param companions the other digits of its mini-batch, [n - 1, 784]
 */
export function answer(model: Model, input: Float32Array, companions: Float32Array): Answers {
  const running = pass(model, input, testTime(model), (norm, _x, index) =>
    statisticsOf(model.adapted?.[index].standard ?? standardOf(norm).freeze()),
  );
  const batch = new Float32Array(input.length + companions.length);
  batch.set(input);
  batch.set(companions, input.length);
  return {
    running,
    miniBatch: pass(model, batch, byMiniBatch, (norm, x) => {
      const { mean, m2, count } = norm.moments(x);
      return { mean, deviation: m2.map((sum) => Math.sqrt(sum / count + norm.epsilon)) };
    }),
    refusal: companions.length === 0 ? refusalOf(model.layers[0].norm as BatchNorm) : null,
  };
}

/** The first example's way through the network. */
function pass(
  { layers }: Model,
  x: Float32Array,
  normalize: Normalize,
  by: (norm: BatchNorm, x: Float32Array, index: number) => Pick<Passage, "mean" | "deviation">,
): Answer {
  const passages: Passage[] = [];
  const scores = logits(layers, x, (norm, values, index) => {
    const y = normalize(norm, values, index);
    const first = (of: Float32Array) => of.slice(0, norm.channels);
    passages.push({ before: first(values), after: first(y), ...by(norm, values, index) });
    return y;
  });
  const probabilities = softmax(scores.subarray(0, CLASSES));
  return { probabilities, digit: probabilities.indexOf(Math.max(...probabilities)), passages };
}

/** A copy that gives x̂: γ = 1, β = 0. */
export function standardOf(norm: BatchNorm): BatchNorm {
  const copy = norm.clone();
  copy.gamma?.fill(1);
  copy.beta?.fill(0);
  return copy;
}

/** Mean and √(variance + ε) of x̂ = (x - center)·scale + shift. */
function statisticsOf(standard: FrozenBatchNorm): Pick<Passage, "mean" | "deviation"> {
  const { center, scale, shift } = standard.toJSON();
  return {
    mean: center.map((c, i) => Number(c) - Number(shift[i]) / Number(scale[i])),
    deviation: scale.map((s) => 1 / Number(s)),
  };
}

function refusalOf(norm: BatchNorm): string {
  try {
    norm.train(new Float32Array(norm.channels), { updateRunning: false });
  } catch (error) {
    if (error instanceof SingleValueError) return `${error.name}: ${error.message}`;
    throw error;
  }
  throw new Error("expected a mini-batch of one to be refused.");
}
