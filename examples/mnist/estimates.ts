/**
 * Other ways to the mean and variance of test time than the running averages of the layers: other
 * decays beside them, the exact statistics of all training digits, and adaptation to the digits that
 * are being answered.
 */

import { setImmediate } from "node:timers/promises";
import * as tf from "@tensorflow/tfjs";
import {
  adapter,
  BatchNorm,
  type BatchNormOptions,
  type CalibrationReport,
  calibrate,
  type Statistics,
} from "batchnorm-wasm";
import { type Digits, inOrder, PIXELS, pixels } from "./digits.js";
import { type Network, type Normalization, training } from "./network.js";

/** Digits in a mini-batch of the exact statistics. */
export const CALIBRATION_BATCH = 600;
/** As how many digits the running averages count, and how many targets are remembered. */
export const ADAPTATION = { prior: 16, memory: 1000 } as const;
/** Digits that are answered together while the layers adapt. */
export const TARGETS = 100;

/** Averages of another kind, of the same mini-batches, beside those of a network's own layers. */
export class Beside {
  readonly #layers: BatchNorm[];

  constructor(network: Network, options: BatchNormOptions) {
    this.#layers = network.norms.map(({ layer }) => new BatchNorm(layer.channels, options));
  }

  /** Takes in the mini-batch that the network was trained on last: its statistics, no values. */
  follow(network: Network): void {
    network.norms.forEach(({ layer }, i) => {
      const batch = layer.lastBatch;
      if (batch === null) throw new Error("expected a network that has been trained for a step.");
      const { count, mean, variance } = batch;
      const m2 = variance.map((v) => v * count);
      this.#layers[i].train(new Float32Array(0), { statistics: { count, mean, m2 } });
    });
  }

  get averages(): Statistics[] {
    return this.#layers.map(copy);
  }
}

const copy = ({ runningMean, runningVariance }: BatchNorm): Statistics => ({
  mean: runningMean.slice(),
  variance: runningVariance.slice(),
});

/** The running averages of a network's layers, first to last; a copy. */
export function averagesOf(network: Network): Statistics[] {
  return network.norms.map(({ layer }) => copy(layer));
}

/** Writes them. */
export function setAverages(network: Network, averages: readonly Statistics[]): void {
  network.norms.forEach(({ layer }, i) => {
    layer.runningMean.set(averages[i].mean);
    layer.runningVariance.set(averages[i].variance);
  });
}

/**
 * Sets the running averages to the exact statistics of all digits.
 *
 * @param watch is shown what goes into the first batch norm, [m, 100]
 */
export function calibrateOn(
  network: Network,
  digits: Digits,
  onProgress: (digits: number) => void = () => {},
  watch: (x: tf.Tensor2D) => void = () => {},
): Promise<CalibrationReport> {
  const forward = async (indices: Uint32Array) => {
    tf.tidy(() => {
      const x = tf.tensor2d(pixels(digits, indices), [indices.length, PIXELS]);
      network.logits(x, (norm, input, index) => {
        if (index === 0) watch(input);
        return training(norm, input, index);
      });
    });
    await setImmediate(); // the progress bar's timer may have something to do
  };
  const layers = network.norms.map(({ layer }) => layer);
  return calibrate(layers, forward, inOrder(digits, CALIBRATION_BATCH), {
    onProgress: ({ examples }) => onProgress(examples),
  });
}

/** Each layer adapts to what it is given, in the order it comes. */
export function adapting(network: Network): Normalization {
  const adapters = network.norms.map(({ layer }) => adapter(layer, ADAPTATION));
  return (_norm, x, index) => tf.tensor2d(adapters[index].infer(x.dataSync<"float32">()), x.shape);
}
