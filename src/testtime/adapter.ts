// Test-time adaptation to targets as they come: the streaming form of adapt.ts, whose statistics fade, and its JSON.

import type { Kernels } from "../engine/kernels.js";
import { checkKeys, describe, StateError } from "../errors.js";
import type { InferOptions } from "../frozen/frozen.js";
import { type FrozenBatchNorm, freeze } from "../frozen/frozen-batch-norm.js";
import { BatchNorm } from "../layer/batch-norm.js";
import type { Snapshot } from "../layer/snapshot.js";
import { INFER_KEYS, NO_OPTIONS, recorded } from "../values/check.js";
import { fromNumbers, type JsonNumber, named, parse, toNumber } from "../values/json.js";
import { listed, sizesOf } from "../values/layout.js";
import { Moments, type MomentsJSON, pool } from "../values/moments.js";
import { Raw } from "../values/raw.js";
import { isVariance } from "../values/terms.js";
import { type Blend, blend, checkSpread, examplesOf, targetOf, zeroBlend } from "./adapt.js";
import { checkLayer } from "./layer.js";

/** Options of `adapter`. */
export interface AdapterOptions {
  /** How many examples the running averages count as, >= 0; may be Infinity. */
  prior: number;
  /** The largest number of examples that is remembered, >= 1; may be Infinity. */
  memory: number;
}

/** What `Adapter.toJSON` gives; numbers are exact. */
export interface AdapterJSON {
  /** Tells the JSON of an adapter from other JSON. */
  readonly format: "batchnorm-wasm/adapter";
  /** Version of the format. */
  readonly version: 1;
  /** The layer, as it was trained. */
  readonly layer: Snapshot;
  /** How many examples the running averages count as. */
  readonly prior: JsonNumber;
  /** The largest number of examples that is remembered. */
  readonly memory: JsonNumber;
  /** How many examples the targets so far count as. */
  readonly examples: number;
  /**
   * What is remembered of the targets, `null` before the first. Its count is not a whole number if old targets have
   * faded.
   */
  readonly target: MomentsJSON | null;
}

/**
 * The streaming form of `adapt`. Its `infer` takes targets as they come and remembers statistics of them that
 * count as at most `memory` examples. It works on a copy of the layer, so later training does not reach it.
 *
 * @param bn the layer, as it was trained.
 * @throws OptionError if `bn` is no layer, or without a prior >= 0 and a memory >= 1, in examples; StateError as
 * `bn.clone`.
 */
export function adapter(bn: BatchNorm, options: AdapterOptions): Adapter {
  checkLayer(bn);
  checkKeys("options", options, ["prior", "memory"]);
  const prior = examplesOf("prior", options.prior, 0);
  const memory = examplesOf("memory", options.memory, 1);
  return create(bn.clone(), prior, memory, null, 0);
}

/**
 * The streaming form of `adapt`, for servers whose targets come one at a time; `adapter` makes one. Each target
 * is first added to what is remembered and then normalized. Once `memory` is full, old targets weigh less and
 * less.
 *
 * @throws StateError from every member that is used through a proxy of it (Vue's `reactive`, valtio's `proxy`).
 */
export class Adapter extends Raw {
  readonly #layer: BatchNorm;
  readonly #prior: number;
  readonly #memory: number;
  #target: Moments | null;
  #examples: number;
  /** Where the moments of the next target are written; undefined: into new arrays. Nobody else sees these. */
  #spare: Moments | undefined;
  /** Room for the statistics that normalize a target. */
  readonly #blended: Blend;

  /** @internal Use `adapter`. */
  constructor(
    layer: BatchNorm,
    prior: number,
    memory: number,
    target: Moments | null,
    examples: number,
  ) {
    super();
    if (examples === undefined) throw new StateError("Adapter", "adapter or fromJSON", "new");
    this.#layer = layer;
    this.#prior = prior;
    this.#memory = memory;
    this.#target = target;
    this.#examples = examples;
    this.#blended = zeroBlend(layer.channels);
  }

  /** How many examples the targets so far count as: at most `memory`. */
  get examples(): number {
    return this.itself.#examples;
  }

  /**
   * Takes targets into account, then normalizes them (Schneider et al. 2020, eq. 2).
   *
   * @param x float32 values in the layer's layout; all layouts but `"NC"` need `shape`.
   * @returns `out`, or a fresh Float32Array, in the shape of x.
   * @throws as `adapt` and `bn.infer`. When it throws, nothing has been remembered.
   */
  infer<Out extends Float32Array = Float32Array<ArrayBuffer>>(
    x: Float32Array,
    options: InferOptions<Out> = NO_OPTIONS,
  ): Out {
    checkKeys("options", options, INFER_KEYS);
    const { shape, mask, out, add } = options;
    const own = { shape: sizesOf(shape), mask, out, add } as InferOptions<Out>;
    const before = this.itself.#target;
    const layer = this.#layer;
    const { moments, examples } = targetOf(layer, x, own, this.#spare);
    const remembered = Math.min(this.#memory, this.#examples + examples);
    const kept = remembered - examples; // Negative where the targets alone are more than is remembered.
    if (kept <= 0) checkSpread(this.#prior, moments.count);
    const fresh = weigh(moments, remembered, examples, moments.m2);
    // What is remembered stays as it is, in case that something throws. `blend` writes to that array only afterwards.
    const { variance: room } = this.#blended;
    const pooled =
      before && kept > 0 ? pool(weigh(before, kept, this.#examples, room), fresh) : fresh;
    const target = examples > 0 ? pooled : before;
    const given = blend(layer, target, this.#prior, remembered, this.#blended);
    const y = layer.inferBy(given, x, own);
    // The arrays take turns, as new ones would take longer than all else for a few channels.
    if (target !== before) this.#spare = before || undefined;
    this.#target = target;
    this.#examples = remembered;
    return y;
  }

  /**
   * A frozen layer with the statistics adapted so far, which later targets do not change.
   *
   * @throws StateError for an invalid running variance.
   */
  freeze(): FrozenBatchNorm {
    const layer = this.itself.#layer;
    return freeze(layer, blend(layer, this.#target, this.#prior, this.#examples));
  }

  /**
   * What `JSON.stringify` writes and `fromJSON` reads, exactly: the layer, and what the targets have left. An adapter
   * that is made of it goes on with the same bits.
   *
   * @throws StateError if an array of the layer was transferred to another thread, or as `bn.snapshot`.
   */
  toJSON(): AdapterJSON {
    const target = this.itself.#target;
    return {
      format: "batchnorm-wasm/adapter",
      version: 1,
      layer: this.#layer.snapshot(),
      prior: toNumber(this.#prior),
      memory: toNumber(this.#memory),
      examples: this.#examples,
      target: target?.toJSON() ?? null,
    };
  }

  /**
   * The adapter that `toJSON` wrote, so that a restart of a server forgets nothing.
   *
   * @param json the object, or its JSON text.
   * @param options `kernels`: kernels of your own for the layer.
   * @throws StateError if it is not what `toJSON` writes; OptionError for an unknown option.
   */
  static fromJSON(
    json: AdapterJSON | string,
    options: { kernels?: Kernels } = NO_OPTIONS,
  ): Adapter {
    return read(json, options);
  }

  /** The adapter in one line, which Node's `console.log` shows too. */
  override toString(): string {
    const { channels, layout, activation } = this.itself.#layer;
    const options = listed({ layout, prior: this.#prior, memory: this.#memory, activation });
    return `Adapter(${channels}, ${options}), examples: ${this.#examples}`;
  }

  /** Forgets all targets. */
  reset(): void {
    this.itself.#target = null;
    this.#examples = 0;
  }
}

// Not inside the class: bundlers rename a class whose body names it, and it would print as _Adapter.
const create = (...of: ConstructorParameters<typeof Adapter>): Adapter => new Adapter(...of);

function read(json: unknown, options: { kernels?: Kernels }): Adapter {
  const {
    layer: snapshot,
    prior,
    memory,
    examples,
    target,
  } = parse<AdapterJSON>("json", json, "batchnorm-wasm/adapter");
  const layer = BatchNorm.fromSnapshot(snapshot, options);
  return recorded("json.", () => {
    const most = examplesOf("memory", named(memory), 1);
    const count = examplesOf("examples", examples, 0);
    const isKept = count > 0 && count <= most && count < Infinity;
    if (target === null ? count > 0 : !isKept) {
      const expected = target === null ? "0 without a target" : `a finite number > 0, <= ${most}`;
      throw new StateError("json.examples", expected, count);
    }
    const moments = target === null ? null : targetFrom(target, layer.channels);
    return create(layer, examplesOf("prior", named(prior), 0), most, moments, count);
  });
}

/** The moments of targets in JSON. Their count need not be whole, as `Moments.fromJSON` insists. */
function targetFrom(json: unknown, channels: number): Moments {
  const own = parse<MomentsJSON>("json.target", json, "batchnorm-wasm/moments");
  const numbers = (name: "mean" | "m2" | "meanLow"): Float64Array =>
    Float64Array.from(fromNumbers(`json.target.${name}`, own[name], channels));
  const mean = numbers("mean");
  const m2 = numbers("m2");
  const meanLow = numbers("meanLow");
  if (
    !(Number.isFinite(own.count) && own.count > 0) ||
    !m2.every(isVariance) ||
    !mean.every((m, c) => Number.isFinite(m + meanLow[c]!))
  ) {
    throw new StateError("json.target", "a count > 0, m2 >= 0, and finite means", describe(json));
  }
  return new Moments(own.count, mean, m2, meanLow);
}

/**
 * Makes `moments` of `all` examples count as those of `kept`. They keep their means, and their sums of squares are written
 * to `m2`.
 */
function weigh(moments: Moments, kept: number, all: number, m2: Float64Array): Moments {
  if (kept >= all) return moments;
  const { count, mean, m2: sums, meanLow } = moments;
  const share = kept / all;
  for (let c = 0; c < sums.length; c++) m2[c] = sums[c]! * share;
  return new Moments(count * share, mean, m2, meanLow);
}
