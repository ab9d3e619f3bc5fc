// What a layer consists of, and what users read and write of it: its options, parameters and averages, as properties.

import { type Kernels, sharedKernels } from "../engine/kernels.js";
import type { Activation } from "../values/activation.js";
import type { Layout } from "../values/layout.js";
import type { VarianceKind } from "../values/moments.js";
import { Raw } from "../values/raw.js";
import { type Batch, type Collector, LatestBatch } from "./batch.js";
import type { Buffers } from "./gradient-arrays.js";
import type { Settings } from "./options.js";
import { Parameters } from "./parameters.js";
import { checkRenorm, type Renorm, type Renormalization } from "./renorm.js";
import { RunningAverages } from "./running-averages.js";

/** What a layer consists of. The functions that do the work of its methods get all of it. */
export interface Parts {
  readonly channels: number;
  readonly settings: Settings;
  readonly parameters: Parameters;
  readonly averages: RunningAverages;
  readonly latest: LatestBatch;
  /** Those of its arrays, in which no result may lie. */
  readonly buffers: Buffers;
  /** Takes the moments of each batch while a `calibrate` runs. */
  collector: Collector | null;
}

/** The kernels of a layer. (A subclass may have a getter `kernels` that calls the layer, so methods call this.) */
export const kernelsOf = (parts: Parts): Kernels => (parts.settings.kernels ??= sharedKernels());

/** The parts of a new layer. */
export function partsOf(channels: number, settings: Settings): Parts {
  const parameters = new Parameters(channels, settings);
  const averages = new RunningAverages(channels, settings);
  return {
    channels,
    settings,
    parameters,
    averages,
    latest: new LatestBatch(channels, settings.layout),
    // In the order of OWN in gradient-arrays.ts.
    buffers: [
      parameters.gamma,
      parameters.beta,
      averages.mean,
      averages.variance,
      averages.renormMean,
      averages.renormDeviation,
    ].map((array) => array?.buffer),
    collector: null,
  };
}

/** The properties of `BatchNorm`, in its base class. */
export abstract class LayerProperties extends Raw {
  readonly #parts: Parts;

  /** @internal */
  constructor(parts: Parts) {
    super();
    this.#parts = parts;
  }

  /** How many features are normalized. */
  get channels(): number {
    return this.itself.#parts.channels;
  }

  /** Order of the axes of the data. */
  get layout(): Layout {
    return this.itself.#parts.settings.layout;
  }

  /** Added to the variance under the square root, in the unit of the data squared. */
  get epsilon(): number {
    return this.itself.#parts.settings.epsilon;
  }

  /** Weight of the old value in the running averages, or `"cumulative"`; 1 only if a file says so: see `train`. */
  get decay(): number | "cumulative" {
    return this.itself.#parts.settings.decay;
  }

  /** Whether the share of the initial 0 and 1 is taken out of early averages. */
  get debias(): boolean {
    return this.itself.#parts.settings.debias;
  }

  /** Which variance of a mini-batch enters the running average. */
  get runningVarianceOf(): VarianceKind {
    return this.itself.#parts.settings.runningVarianceOf;
  }

  /** What limits the output: `"relu"`, `"relu6"`, [low, high], or `null`. */
  get activation(): Activation | null {
    return this.itself.#parts.settings.activation;
  }

  /**
   * The limits of batch renormalization, and its `decay` if it has one; `null` without it. Writable between steps, as
   * Ioffe 2017 relaxes the limits; rmin is 1/rmax unless given.
   *
   * @throws OptionError if what is written is neither limits nor `null`.
   */
  get renorm(): Renormalization | null {
    return this.itself.#parts.settings.renorm;
  }

  /**
   * Takes other limits, from the next `train` on; `null` for none.
   *
   * @throws OptionError if it is neither.
   */
  set renorm(limits: Renorm | null) {
    this.itself.#parts.settings.renorm = checkRenorm(limits);
  }

  /**
   * γ, the learned scale, [channels], initially 1; writable in place; `null` where left out.
   * @throws StateError if its buffer was transferred to another thread, as all methods that need it.
   */
  get gamma(): Float32Array<ArrayBuffer> | null {
    return this.itself.#parts.parameters.gamma;
  }

  /**
   * β, the learned shift, [channels], initially 0; writable in place; `null` where left out.
   * @throws StateError as `gamma`.
   */
  get beta(): Float32Array<ArrayBuffer> | null {
    return this.itself.#parts.parameters.beta;
  }

  /**
   * Running average of the means, [channels], in the unit of the data, initially 0; writable in place.
   * @throws StateError as `gamma`.
   */
  get runningMean(): Float64Array {
    return this.itself.#parts.averages.mean;
  }

  /**
   * Running average of the variances, [channels], in that unit squared, initially 1; writable in place.
   * @throws StateError as `gamma`.
   */
  get runningVariance(): Float64Array {
    return this.itself.#parts.averages.variance;
  }

  /**
   * The average of the means of mini-batches from which batch renormalization takes d, if `renorm` has a `decay`;
   * [channels], in the unit of the data, initially 0; writable in place.
   * @throws StateError as `gamma`.
   */
  get renormMean(): Float64Array {
    return this.itself.#parts.averages.renormMean;
  }

  /**
   * The average of √(σ² + ε), where σ² is the variance by which `train` normalizes; batch renormalization takes r and d
   * from it, if `renorm` has a `decay`. [channels], >= 0, in the unit of the data, initially 1; writable in place.
   * @throws StateError as `gamma`.
   */
  get renormDeviation(): Float64Array {
    return this.itself.#parts.averages.renormDeviation;
  }

  /** How many mini-batches entered the averages, a whole number >= 0. Writable: set it when you write averages. */
  get batchesSeen(): number {
    return this.itself.#parts.averages.batchesSeen;
  }

  /** After this, the age of the averages is known. */
  set batchesSeen(count: number) {
    const { averages } = this.itself.#parts;
    averages.batchesSeen = count;
    averages.ageKnown = true;
  }

  /**
   * False if the layer was read from a file that does not count mini-batches (`batchnorm-wasm/state`): more
   * than `batchesSeen` may have entered. True once `calibrate`, `setRunning`, `reset` or you set that.
   */
  get ageKnown(): boolean {
    return this.itself.#parts.averages.ageKnown;
  }

  /** What `backward` needs of the latest `train`; `null` before it. */
  get lastBatch(): Batch | null {
    return this.itself.#parts.latest.batch;
  }

  /**
   * The kernels whose tensors the layer takes without copying.
   *
   * @throws UnsupportedError or MemoryError at their first use, as `new Kernels`.
   */
  get kernels(): Kernels {
    return kernelsOf(this.itself.#parts);
  }
}
