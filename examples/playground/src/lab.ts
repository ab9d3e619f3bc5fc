/**
 * The network in the web worker: trained here, examined on the held-out digits, calibrated and
 * adapted. Knows nothing of workers, so that tests run it as it is.
 */

import {
  adapt,
  BatchNorm,
  calibrate,
  type Diagnosis,
  diagnose,
  type MomentsLike,
  type Snapshot,
} from "batchnorm-wasm";
import {
  accuracy,
  type Digits,
  inOrder,
  labelsOf,
  miniBatches,
  pixels,
} from "../../mnist/digits.js";
import { initialWeights, type Layer, untrained } from "../../mnist/layers.js";
import { Random } from "../../mnist/random.js";
import { type Adapted, inputsOf, type NetworkState, standardOf } from "./answer.js";
import { byMiniBatch, dense, descend, fromNorm, logits, type Normalize } from "./network.js";
import { unpackDigits, unpackNetwork } from "./packed.js";

/** As the demo has them (examples/mnist): see its args.ts. */
const BATCH_SIZE = 60;
const LEARNING_RATE = 0.3;
const DEVIATION = 0.1;
/** Mini-batches of which the statistics are kept, 4.8 KB each. */
export const MOST_STEPS = 3000;
const CALIBRATION_BATCH = 500;
/** Unlabelled digits that `adapt` sees, and as how many the running averages count beside them. */
export const ADAPTATION = { targets: 250, prior: 16 } as const;

/** The packed files, unzipped. */
export interface Files {
  readonly network: Uint8Array;
  readonly heldOut: Uint8Array;
  readonly training: Uint8Array;
}

/** What moved the running averages: a mini-batch, or a `calibrate`; one entry per layer. */
interface Event {
  readonly kind: "mini-batch" | "calibrate";
  /** Mini-batches trained so far, this one included. */
  readonly step: number;
  readonly layers: readonly { readonly moments: MomentsLike; readonly batchesSeen: number }[];
}

/** One unit of a layer before normalization, after each event. */
export interface History {
  readonly step: number[];
  /** Of the mini-batch; the sample variance, as the running average gathers it. */
  readonly mean: (number | null)[];
  readonly variance: (number | null)[];
  readonly runningMean: number[];
  readonly runningVariance: number[];
}

/** How good the network is on the held-out digits, and how well its averages fit them. */
export interface Examination {
  readonly step: number;
  /** What was asked for. */
  readonly strength: number;
  readonly batchSize: number;
  /** Shares answered rightly, 0 … 1. */
  readonly running: number;
  readonly miniBatch: number;
  readonly adapted: number | null;
  /** What each layer says of its inputs, by what test time uses now. */
  readonly layers: readonly Drifted[];
}

export interface Drifted extends Pick<Diagnosis, "verdict" | "advice" | "batchesSeen"> {
  /** See `diagnose` of the package. */
  readonly meanDrift: Float64Array;
  readonly varianceRatio: Float64Array;
}

export class Lab {
  readonly #saved: Uint8Array;
  readonly #heldOut: Digits;
  readonly #training: Digits;
  /** The first layer's products with the held-out digits, for one network and one shift. */
  #inputs: { strength: number; x: Float32Array };
  #layers: Layer[] = [];
  #adapted: readonly Adapted[] | null = null;
  #own = false;
  #step = 0;
  #decay = 0.9;
  /** The norms before all events. */
  #start: Snapshot[] = [];
  #events: Event[] = [];
  #batches: Generator<Uint32Array, never>;
  #watched: Watched | null = null;

  constructor({ network, heldOut, training }: Files) {
    this.#saved = network;
    this.#heldOut = unpackDigits(heldOut);
    this.#training = unpackDigits(training);
    this.#inputs = { strength: 0, x: inputsOf(this.#heldOut, 0) };
    this.#batches = miniBatches(this.#training, BATCH_SIZE, new Random(1));
    this.restore();
  }

  /** Back to the network that the demo trained. */
  restore(): void {
    this.#begin(unpackNetwork(this.#saved).layers, false);
  }

  /** A new network with random weights. */
  restart(seed: number): void {
    const random = new Random(seed);
    this.#begin(untrained(initialWeights(random, DEVIATION), { decay: this.#decay }), true);
    this.#batches = miniBatches(this.#training, BATCH_SIZE, random);
  }

  #begin(layers: Layer[], own: boolean): void {
    this.#layers = layers;
    this.#own = own;
    this.#step = 0;
    this.#events = [];
    this.#start = this.#norms.map((norm) => norm.snapshot());
    this.#adapted = null;
    this.setDecay(this.#decay);
  }

  get #norms(): BatchNorm[] {
    return this.#layers.flatMap(({ norm }) => norm ?? []);
  }

  state(): NetworkState {
    return {
      layers: this.#layers.map(({ weight, bias, norm, ...sizes }) => ({
        ...sizes,
        weight: weight.slice(),
        bias: bias?.slice() ?? null,
        norm: norm?.snapshot() ?? null,
      })),
      adapted:
        this.#adapted?.map(({ frozen, standard }) => ({
          frozen: frozen.toJSON(),
          standard: standard.toJSON(),
        })) ?? null,
      own: this.#own,
      step: this.#step,
    };
  }

  /**
   * Trains for some mini-batches, as many as fit into `milliseconds`, at least one.
   *
   * @returns the loss before the last of them; `null` if all steps were trained already
   */
  advance(steps: number, milliseconds = Number.POSITIVE_INFINITY): number | null {
    const until = performance.now() + milliseconds;
    let loss: number | null = null;
    for (let i = 0; i < steps && this.#step < MOST_STEPS; i++) {
      const indices = this.#batches.next().value;
      const x = pixels(this.#training, indices);
      loss = descend(this.#layers, x, labelsOf(this.#training, indices), LEARNING_RATE);
      this.#step++;
      this.#events.push({
        kind: "mini-batch",
        step: this.#step,
        layers: this.#norms.map(({ lastBatch, batchesSeen }) => {
          if (lastBatch === null) throw new Error("expected a layer that has been trained.");
          const { count, mean, variance } = lastBatch;
          return { moments: { count, mean, m2: variance.map((v) => v * count) }, batchesSeen };
        }),
      });
      if (performance.now() >= until) break;
    }
    this.#adapted = null;
    return loss;
  }

  /**
   * Another decay, as if it had been so from the start: training does not depend on the running
   * averages, so the statistics of its mini-batches are all that they need.
   */
  setDecay(decay: number): void {
    this.#decay = decay;
    this.#watched = null;
    this.#adapted = null;
    this.#norms.forEach((norm, i) => {
      const { gamma, beta } = norm.snapshot();
      const averages = new Averages({ ...this.#start[i], gamma, beta, decay }, i);
      for (const event of this.#events) averages.follow(event);
      this.#layers[i] = { ...this.#layers[i], norm: averages.norm };
    });
  }

  /** How one unit's statistics came along. */
  history(layer: number, unit: number): History {
    if (this.#watched?.layer !== layer || this.#watched.unit !== unit) {
      const start = { ...this.#start[layer], decay: this.#decay };
      this.#watched = new Watched(start, layer, unit);
    }
    this.#watched.catchUp(this.#events);
    return this.#watched.history;
  }

  /**
   * Accuracies on the held-out digits and the drift of every layer.
   *
   * @param strength of the shift, see `shift`
   * @param batchSize of the mini-batches that normalize by their own statistics
   */
  examine(strength: number, batchSize: number): Examination {
    const layers = this.#layers;
    const products = dense(layers[0], this.#inputsAt(strength));
    const heldOut = this.#heldOut;
    const share = (scores: Float32Array) => accuracy(scores, heldOut);
    const drifted: Drifted[] = [];
    const running = fromNorm(layers, 0, products, (norm, x) => {
      if (this.#adapted === null) drifted.push(driftedOf(diagnose(norm, x)));
      return norm.infer(x);
    });
    let adapted: number | null = null;
    const stand = this.#adapted;
    if (stand !== null) {
      const scores = fromNorm(layers, 0, products, (norm, x, index) => {
        const { frozen, standard } = stand[index];
        drifted.push(driftedOf(diagnose(unitLayer(norm), standard.infer(x))));
        return frozen.infer(x);
      });
      adapted = share(scores);
    }
    return {
      step: this.#step,
      strength,
      batchSize,
      running: share(running),
      miniBatch: share(this.#inMiniBatches(products, batchSize)),
      adapted,
      layers: drifted,
    };
  }

  #inputsAt(strength: number): Float32Array {
    if (this.#inputs.strength !== strength) {
      this.#inputs = { strength, x: inputsOf(this.#heldOut, strength) };
    }
    return this.#inputs.x;
  }

  /** Scores by mini-batch statistics; `products`: of the first layer, [count, 100]. */
  #inMiniBatches(products: Float32Array, size: number): Float32Array {
    const width = this.#layers[0].outputs;
    const parts: number[] = [];
    for (const run of inOrder(this.#heldOut, size)) {
      const part = products.subarray(run[0] * width, (run[0] + run.length) * width);
      parts.push(...fromNorm(this.#layers, 0, part, byMiniBatch));
    }
    return Float32Array.from(parts);
  }

  /** The running averages become the exact statistics of the training digits. */
  async calibrate(onProgress: (share: number) => unknown = () => {}): Promise<void> {
    const runs = [...inOrder(this.#training, CALIBRATION_BATCH)];
    const training: Normalize = (norm, x) => norm.train(x);
    const forward = (indices: Uint32Array) =>
      logits(this.#layers, pixels(this.#training, indices), training);
    const report = await calibrate(this.#norms, forward, runs, {
      onProgress: ({ batches }) => onProgress(batches / runs.length),
    });
    this.#events.push({
      kind: "calibrate",
      step: this.#step,
      layers: report.layers.map(({ moments }) => ({ moments, batchesSeen: report.batches })),
    });
    this.#adapted = null;
  }

  /** Test time adapts to unlabelled digits of this shift, layer by layer. */
  adapt(strength: number): void {
    const { targets, prior } = ADAPTATION;
    const adapted: Adapted[] = [];
    logits(this.#layers, inputsOf(this.#training, strength, targets), (norm, x) => {
      const frozen = adapt(norm, x, { prior });
      adapted.push({ frozen, standard: adapt(standardOf(norm), x, { prior }) });
      return frozen.infer(x);
    });
    this.#adapted = adapted;
  }

  /** Takes back what `adapt` did, or else a `calibrate` that was the last to move the averages. */
  undo(): void {
    if (this.#adapted !== null) this.#adapted = null;
    else if (this.#events.at(-1)?.kind === "calibrate") {
      this.#events.pop();
      this.setDecay(this.#decay);
    }
  }
}

const driftedOf = ({ verdict, advice, batchesSeen, channels }: Diagnosis): Drifted => ({
  verdict,
  advice,
  batchesSeen,
  meanDrift: channels.meanDrift,
  varianceRatio: channels.varianceRatio,
});

/** Averages of exactly 0 and 1: what adapted values should have, but for the drift that is left. */
function unitLayer({ channels, batchesSeen, epsilon }: BatchNorm): BatchNorm {
  const unit = new BatchNorm(channels, { epsilon });
  unit.batchesSeen = Math.max(1, batchesSeen);
  return unit;
}

/** One layer's running averages, led through events by statistics alone. */
class Averages {
  readonly norm: BatchNorm;
  readonly #index: number;

  constructor(start: Snapshot, index: number) {
    this.norm = BatchNorm.fromSnapshot(start);
    this.#index = index;
  }

  follow({ kind, layers }: Event): void {
    const { moments, batchesSeen } = layers[this.#index];
    if (kind === "mini-batch") this.norm.train(new Float32Array(0), { statistics: moments });
    else {
      this.norm.setRunning(moments);
      this.norm.batchesSeen = batchesSeen;
    }
  }
}

/** One unit, followed through all events. */
class Watched {
  readonly layer: number;
  readonly unit: number;
  readonly history: History;
  readonly #averages: Averages;
  #seen = 0;

  constructor(start: Snapshot, layer: number, unit: number) {
    this.layer = layer;
    this.unit = unit;
    this.#averages = new Averages(start, layer);
    const { runningMean, runningVariance } = this.#averages.norm;
    this.history = {
      step: [0],
      mean: [null],
      variance: [null],
      runningMean: [runningMean[unit]],
      runningVariance: [runningVariance[unit]],
    };
  }

  catchUp(events: readonly Event[]): void {
    const { history, unit, layer } = this;
    for (; this.#seen < events.length; this.#seen++) {
      const event = events[this.#seen];
      this.#averages.follow(event);
      const { norm } = this.#averages;
      const { count, mean, m2 } = event.layers[layer].moments;
      const batch = event.kind === "mini-batch";
      history.step.push(event.step);
      history.mean.push(batch ? mean[unit] : null);
      history.variance.push(batch ? m2[unit] / (count - 1) : null);
      history.runningMean.push(norm.runningMean[unit]);
      history.runningVariance.push(norm.runningVariance[unit]);
    }
  }
}
