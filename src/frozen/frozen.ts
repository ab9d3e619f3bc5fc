// A layer for test time only. When it is made, the running averages, γ and β of a layer are turned into a scale and a
// shift per channel (Ioffe & Szegedy 2015, algorithm 2, lines 8 to 12).

import { startFrozen } from "../engine/instances.js";
import type { AffineMachine } from "../engine/machine.js";
import { Buffers, MIN_BYTES } from "../engine/memory.js";
import { TINY } from "../engine/plan.js";
import { checkKeys, StateError } from "../errors.js";
import {
  type Activation,
  type ActivationJSON,
  activationOf,
  rangeOf,
  readActivation,
  writeActivation,
} from "../values/activation.js";
import { outputOf, residualOf } from "../values/arrays.js";
import { checkChannels, INFER_KEYS, NO_OPTIONS, recorded } from "../values/check.js";
import { fromNumbers, type JsonNumber, parse, toNumbers } from "../values/json.js";
import {
  checkLayout,
  LAYOUTS,
  type Layout,
  listed,
  sizeOf,
  type View,
  viewOf,
} from "../values/layout.js";
import { maskOf, pad } from "../values/mask.js";
import { Raw } from "../values/raw.js";
import type { AffineTerms } from "../values/terms.js";
import { inverseOf } from "./inverse.js";
import { tinyAffine } from "./tiny.js";

const INVERSE_KEYS = ["shape", "out"];

/** Options of `infer`. */
export interface InferOptions<Out extends Float32Array = Float32Array> {
  /** Sizes of the axes of `x`; may be left out for layouts that end in C. */
  shape?: readonly number[];
  /** Where the result goes, of x's length; may be x or `add` itself. Default: a fresh array. */
  out?: Out;
  /**
   * Says which positions of x hold data, as in `train`: one entry per example and position, row-major, nonzero for
   * data. All else is padding. Its outputs are the activation of beta, whatever x and `add` hold there.
   */
  mask?: Uint8Array;
  /** A residual in the shape of x, added to γ·x̂ + β before the activation. `out` may be it. Default: none. */
  add?: Float32Array;
}

/** Options of `inverse`. */
export interface InverseOptions<Out extends Float32Array = Float32Array> {
  /** Sizes of the axes of `y`; may be left out for layouts that end in C. */
  shape?: readonly number[];
  /** Where the result goes, of y's length; may be y itself. Default: a fresh array. */
  out?: Out;
}

/** What `FrozenBatchNorm.toJSON` gives; numbers are exact. */
export interface FrozenJSON {
  /** Tells the JSON of a frozen layer from other JSON. */
  readonly format: "batchnorm-wasm/frozen";
  /** Version of the format. */
  readonly version: 1 | 2;
  /** How many features are normalized. */
  readonly channels: number;
  /** Order of the axes of the data. */
  readonly layout: Layout;
  /** The running mean, rounded: y = (x - center)·scale + shift. [channels] float32 values, in the unit of x. */
  readonly center: readonly JsonNumber[];
  /** γ/√(running variance + ε), [channels] float32 values. */
  readonly scale: readonly JsonNumber[];
  /** β - (running mean - center)·scale, [channels] float32 values. */
  readonly shift: readonly JsonNumber[];
  /** β, which is the output for padding: [channels] float32 values, `null` if left out. Not in version 1. */
  readonly beta?: readonly JsonNumber[] | null | undefined;
  /** What limits the output, if anything does. */
  readonly activation?: ActivationJSON | undefined;
}

/** Gives a frozen layer its kernels, when it needs them. */
export interface KernelSource {
  /** Tells the memory whose tensors are used without copying; undefined if there is none yet. */
  readonly memory: () => Buffers | undefined;
  /** Applies terms to x by kernels, which are started at first use; out may be x or add. */
  apply(
    out: Float32Array,
    x: Float32Array,
    view: View,
    terms: AffineTerms,
    add: Float32Array | null,
  ): void;
}

let small: AffineMachine | undefined;

/** Kernels in the least memory, without room for tensors; started at first use, one per realm. */
export const smallMachine = (): AffineMachine =>
  (small ??= startFrozen(() => new Buffers(MIN_BYTES)));

/** All that a frozen layer knows. */
export interface FrozenState {
  readonly channels: number;
  readonly layout: Layout;
  readonly terms: AffineTerms;
  /** The output for padding; `null` means 0. Undefined if the layer comes from JSON that does not say. */
  readonly beta: Float32Array | null | undefined;
}

/** The base class of the `FrozenBatchNorm` of each entry. */
export class Frozen extends Raw {
  readonly #state: FrozenState;
  readonly #kernels: KernelSource;
  /** The passes of `inverse`, from its first use on. */
  #back: readonly AffineTerms[] | undefined;

  /**
   * @internal Use `bn.freeze()` or `FrozenBatchNorm.fromJSON`.
   * @throws StateError without what these give it.
   */
  constructor(state: FrozenState, kernels: KernelSource) {
    super();
    if (!state?.terms)
      throw new StateError("FrozenBatchNorm", "freeze, fromJSON or fromMoments", "new");
    this.#state = state;
    this.#kernels = kernels;
  }

  /** @internal For `fold`: the terms, and the memory that tensors may lie in. */
  get inside(): { readonly terms: AffineTerms; readonly memory: Buffers | undefined } {
    return { terms: this.itself.#state.terms, memory: this.#kernels.memory() };
  }

  /** How many features are normalized. */
  get channels(): number {
    return this.itself.#state.channels;
  }

  /** Order of the axes of the data. */
  get layout(): Layout {
    return this.itself.#state.layout;
  }

  /** What limits the output: `"relu"`, `"relu6"`, [low, high], or `null`. */
  get activation(): Activation | null {
    return activationOf(this.itself.#state.terms.limits);
  }

  /**
   * y = γ·(x - running mean)/√(running variance + ε) + β (Ioffe & Szegedy 2015, algorithm 2,
   * line 11); then `add` is added, and the activation limits the sum. An example gives the same bits alone and in any
   * batch; NaN reaches only its own outputs.
   *
   * @param x float32 values in the layer's layout, for `"NC"` [N, C]; unchanged unless it is `out`.
   * @returns `out`, or a fresh Float32Array, in the shape of x.
   * @throws ShapeError if x, shape, mask, add or out do not fit; OptionError for an unknown option; StateError for a tensor
   * that has been freed, or for a mask if the layer comes from JSON without beta. When it throws, nothing has been
   * written. The first use of kernels may throw UnsupportedError or MemoryError.
   */
  infer<Out extends Float32Array = Float32Array<ArrayBuffer>>(
    x: Float32Array,
    options: InferOptions<Out> = NO_OPTIONS,
  ): Out {
    if (options !== NO_OPTIONS) checkKeys("options", options, INFER_KEYS);
    const { channels, layout, terms, beta } = this.itself.#state;
    // All options are read before x is looked at, since a getter may do anything to it.
    const { shape, mask: given, out: into, add: residual } = options;
    const view = viewOf(layout, channels, x, shape);
    const mask = maskOf(given, view);
    if (mask !== null && beta === undefined) {
      throw new StateError("mask", "JSON of version 2", "version 1");
    }
    const out = this.#apply("x", x, view, terms, residual, into);
    if (mask !== null) pad(out, view, mask, beta ?? null, terms.limits);
    return out as Out;
  }

  /**
   * The values that `infer` would make y of: x = running mean + (y - β)·√(running variance + ε)/γ (Ioffe & Szegedy 2015,
   * algorithm 2, line 11, solved for x). Where y is outside the range of the activation, the result is that of the
   * limit it exceeds. Beside what the rounding of y has lost, it is off from float64 by at most
   * 5·2⁻²⁴·(|x - mean| + |β/γ|·√(variance + ε)) + 2⁻²⁴·|x|.
   *
   * @param y float32 values in the layer's layout, for `"NC"` [N, C]; unchanged unless it is `out`.
   * @returns `out`, or a fresh Float32Array, in the shape of y and the unit of x.
   * @throws StateError if γ/√(running variance + ε) of a channel is 0, as where γ is 0, or so small that float32 does
   * not hold its inverse, and for a tensor that has been freed; ShapeError if y, shape or out do not fit; OptionError
   * for an unknown option. When it throws, nothing has been written. The first use of kernels may throw
   * UnsupportedError or MemoryError.
   */
  inverse<Out extends Float32Array = Float32Array<ArrayBuffer>>(
    y: Float32Array,
    options: InverseOptions<Out> = NO_OPTIONS,
  ): Out {
    if (options !== NO_OPTIONS) checkKeys("options", options, INVERSE_KEYS);
    const { channels, layout, terms } = this.itself.#state;
    const { shape, out } = options;
    const view = viewOf(layout, channels, y, shape, "y");
    let x: Float32Array = y;
    let into: Float32Array | undefined = out;
    for (const pass of (this.#back ??= inverseOf(terms))) {
      x = this.#apply("y", x, view, pass, undefined, into);
      into = x;
    }
    return x as Out;
  }

  /** Applies terms to x, an argument of this name; `residual` and `into` are options that are not checked yet. */
  #apply(
    name: string,
    x: Float32Array,
    view: View,
    terms: AffineTerms,
    residual: unknown,
    into: unknown,
  ): Float32Array {
    const length = sizeOf(view);
    const add = residualOf(residual, length);
    const out = outputOf(into, x, add, length, name);
    // Throws for a tensor that has been freed.
    const memory = this.#kernels.memory();
    memory?.addressOf(name, x);
    memory?.addressOf("out", out);
    if (add !== null) memory?.addressOf("add", add);
    if (length <= TINY) tinyAffine(out, x, view, terms, add);
    else this.#kernels.apply(out, x, view, terms, add);
    return out;
  }

  /** The layer in one line, which Node's `console.log` shows too. */
  override toString(): string {
    return `FrozenBatchNorm(${this.channels}, ${listed(this, ["layout", "activation"])})`;
  }

  /** What `JSON.stringify` writes and `fromJSON` reads, exactly. */
  toJSON(): FrozenJSON {
    const { channels, layout, terms, beta } = this.itself.#state;
    const { activation } = this;
    return {
      format: "batchnorm-wasm/frozen",
      version: beta === undefined ? 1 : 2,
      channels,
      layout,
      center: toNumbers(terms.center),
      scale: toNumbers(terms.scale),
      shift: toNumbers(terms.shift),
      beta: beta && toNumbers(beta),
      ...(activation && { activation: writeActivation(activation) }),
    };
  }
}

/** Reads what `toJSON` wrote, given as object or as JSON text. Throws StateError if it is anything else. */
export function readFrozen(json: unknown): FrozenState {
  const s = parse<FrozenJSON>("json", json, "batchnorm-wasm/frozen", 2);
  const { version, channels, layout, beta } = s;
  const numbers = (name: "center" | "scale" | "shift" | "beta"): Float32Array =>
    new Float32Array(fromNumbers(name, s[name], channels, true));
  const limits = recorded("", () => {
    checkChannels(channels);
    checkLayout(layout, LAYOUTS);
    return rangeOf(readActivation(s.activation));
  });
  return {
    channels,
    layout,
    terms: { center: numbers("center"), scale: numbers("scale"), shift: numbers("shift"), limits },
    beta: version === 1 ? undefined : beta === null ? null : numbers("beta"),
  };
}
