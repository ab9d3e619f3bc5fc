// Test time only: the running averages and γ, β of a layer worked out to a scale and a shift per
// channel (Ioffe & Szegedy 2015, algorithm 2, lines 8 to 12), once.

import { float32, outputOf } from "./arrays.js";
import { checkKeys, OptionError, StateError } from "./errors.js";
import { fromNumbers, type JsonNumber, parse, toNumbers } from "./json.js";
import { checkLayout, LAYOUTS, type Layout, viewOf } from "./layout.js";
import type { AffineMachine } from "./machine.js";
import type { Buffers } from "./memory.js";
import { checkChannels, INFER_KEYS, NO_OPTIONS } from "./options.js";
import { type Affine, apply } from "./run.js";
import { isTiny, tinyAffine } from "./tiny.js";

/** Options of `infer`. */
export interface InferOptions<Out extends Float32Array = Float32Array> {
  /** Sizes of the axes of `x`; may be left out for layouts that end in C. */
  shape?: readonly number[];
  /** Where the result goes, of x's length; may be x itself. Default: a fresh array. */
  out?: Out;
}

/** What `FrozenBatchNorm.toJSON` gives; numbers are exact. */
export interface FrozenJSON {
  /** Says what this is. */
  readonly format: "batchnorm-wasm/frozen";
  /** Of the format. */
  readonly version: 1;
  /** How many features are normalized. */
  readonly channels: number;
  /** Order of the axes of the data. */
  readonly layout: Layout;
  /** y = (x - center)·scale + shift; [channels] float32 values, in the unit of x. */
  readonly center: readonly JsonNumber[];
  /** γ/√(running variance + ε), [channels] float32 values. */
  readonly scale: readonly JsonNumber[];
  /** β - (running mean - center)·scale, [channels] float32 values. */
  readonly shift: readonly JsonNumber[];
}

/** Where a frozen layer works. */
export interface Place {
  /** The memory whose tensors are taken without copying, as far as there is one. */
  memory(): Buffers | undefined;
  /** The kernels; started at first use. */
  machine(): AffineMachine;
}

/** What the `FrozenBatchNorm` of each entry is made of. */
export class Frozen {
  readonly #channels: number;
  readonly #layout: Layout;
  readonly #affine: Affine;
  readonly #place: Place;

  /** @internal */
  constructor(channels: number, layout: Layout, affine: Affine, place: Place) {
    this.#channels = channels;
    this.#layout = layout;
    this.#affine = affine;
    this.#place = place;
  }

  /** How many features are normalized. */
  get channels(): number {
    return this.#channels;
  }

  /** Order of the axes of the data. */
  get layout(): Layout {
    return this.#layout;
  }

  /**
   * y = γ·(x - running mean)/√(running variance + ε) + β (Ioffe & Szegedy 2015, algorithm 2,
   * line 11). Each example by itself: alone or in a batch, the same bits. NaN passes to its own
   * outputs.
   *
   * @param x float32 values in the layer's layout, for `"NC"` [N, C]; unchanged.
   * @returns `out`, or a fresh Float32Array, in the shape of x.
   * @throws ShapeError if x, shape or out do not fit; OptionError for an unknown option; StateError
   * for a tensor freed already. Nothing has been written then. The first use of kernels:
   * UnsupportedError or MemoryError.
   */
  infer<Out extends Float32Array = Float32Array<ArrayBuffer>>(
    x: Float32Array,
    options: InferOptions<Out> = NO_OPTIONS,
  ): Out {
    if (options !== NO_OPTIONS) checkKeys("options", options, INFER_KEYS);
    const view = viewOf(this.#layout, this.#channels, float32("x", x).length, options.shape);
    const out = outputOf(options.out, x) as Out;
    if (isTiny(this.#place.memory(), out, x)) tinyAffine(out, x, view, this.#affine);
    else apply(this.#place.machine(), out, x, view, this.#affine);
    return out;
  }

  /** What `JSON.stringify` writes and `fromJSON` reads, exactly. */
  toJSON(): FrozenJSON {
    return {
      format: "batchnorm-wasm/frozen",
      version: 1,
      channels: this.#channels,
      layout: this.#layout,
      center: toNumbers(this.#affine.hi),
      scale: toNumbers(this.#affine.scale),
      shift: toNumbers(this.#affine.shift),
    };
  }
}

/** What `toJSON` wrote, checked: the object, or its JSON text. Throws StateError where it is not that. */
export function readFrozen(json: unknown): [channels: number, layout: Layout, affine: Affine] {
  const s = parse<FrozenJSON>("json", json, "batchnorm-wasm/frozen");
  const numbers = (name: "center" | "scale" | "shift"): Float32Array =>
    new Float32Array(fromNumbers(name, s[name], s.channels));
  try {
    checkChannels(s.channels);
    checkLayout(s.layout, LAYOUTS);
  } catch (error) {
    if (error instanceof OptionError) throw new StateError(error.message);
    throw error;
  }
  const affine = { hi: numbers("center"), scale: numbers("scale"), shift: numbers("shift") };
  return [s.channels, s.layout, affine];
}
