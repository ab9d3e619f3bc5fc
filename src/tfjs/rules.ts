// What a layers model passes to a layer in a call, and what Keras makes of it where tfjs does not. Keras' rules are in
// its sources, keras/src/layers/normalization/batch_normalization.py and, for arguments that a model stores, in the
// functional models of Keras 2, whose files tfjs loads.

import { Tensor, util } from "@tensorflow/tfjs-core";
import type { layers } from "@tensorflow/tfjs-layers";
import { describe, ShapeError, StateError, UnsupportedError } from "../errors.js";
import { show } from "../values/layout.js";

type Symbolic = layers.Layer["inboundNodes"][number]["inputTensors"][number];

/** The arguments of every layer of tfjs. */
export const LAYER_KEYS: readonly string[] = [
  "inputShape",
  "batchInputShape",
  "batchSize",
  "dtype",
  "name",
  "trainable",
  "weights",
  "inputDType",
];

/** For messages: how to have what tfjs does instead. */
const AS_TFJS = 'or choose rules: "tfjs"';

/**
 * The `training` with which a layer was called when its model was made, and which Keras 2 obeys in `fit` and `predict`;
 * undefined if there was none. Throws StateError where several such calls differ, since tfjs does not say which of
 * them it runs.
 */
export function storedTraining({ inboundNodes, name }: layers.Layer): unknown {
  const stored = inboundNodes.map(({ callArgs }) => callArgs?.training ?? undefined);
  if (stored.every((training) => training === stored[0])) return stored[0];
  throw new StateError(
    "training",
    `the same in all calls of the layer ${name} in models, ${AS_TFJS}`,
    stored.map(String).join(", "),
  );
}

/** Members of layers that this file reads where they are there. */
interface Passing extends layers.Layer {
  readonly returnSequences?: boolean;
}

/**
 * Whether a mask may come with a tensor inside a model. tfjs hands the latest mask of the whole model to every layer
 * behind it, whether it belongs to its input or not.
 */
function mayHaveMask(tensor: Symbolic, seen: Set<Symbolic>): boolean {
  const layer = tensor.sourceLayer as Passing;
  if (!layer.supportsMasking || layer.returnSequences === false || seen.has(tensor)) return false;
  seen.add(tensor);
  const name = layer.getClassName();
  if (name === "Masking" || name === "Embedding") return true;
  if (name === "Dot") return false;
  // Of several masks, tfjs puts those of Concatenate together; else that of the first input counts.
  const count = name === "Concatenate" ? tensor.inputs.length : 1;
  return tensor.inputs.slice(0, count).some((input) => mayHaveMask(input, seen));
}

/** The same of the input of a layer. Throws StateError if it holds for some of its calls in models alone. */
function mayBeMasked({ inboundNodes, name }: layers.Layer): boolean {
  const found = new Set(
    inboundNodes.map(({ inputTensors: [input] }) => mayHaveMask(input!, new Set())),
  );
  if (found.size < 2) return found.has(true);
  throw new StateError(
    "mask",
    `masks in all calls of the layer ${name} in models or in none, ${AS_TFJS}`,
    "some with and some without",
  );
}

/**
 * The mask of a layer's input, one entry per position, nonzero for data; null if there is none, or no padding. In a
 * model, it is the one that tfjs hands over if the input can have one; elsewhere the argument `mask`, or the one that
 * `Masking` and `Embedding` leave at their results.
 */
export function maskFor(
  layer: layers.Layer,
  x: Tensor,
  inModel: boolean,
  given: unknown,
  channelsLast: boolean,
): Uint8Array | null {
  const own = (x as { kerasMask?: Tensor }).kerasMask;
  const mask = (given && (!inModel || mayBeMasked(layer)) ? given : own) ?? null;
  // tfjs frees the masks of a model that ran inside this one, and leaves them at its results.
  if (mask === null || (mask === own && own.isDisposed)) return null;
  const positions = x.shape.slice(0, -1);
  // Add, Multiply and their like put an axis in front of the mask.
  const fits = (shape: number[]): boolean =>
    util.arraysEqual(shape, positions) || util.arraysEqual(shape, [1, ...positions]);
  if (!(mask instanceof Tensor) || !fits(mask.shape)) {
    throw new ShapeError(
      "mask",
      `a tensor of shape ${show(positions)}, ${AS_TFJS}`,
      mask instanceof Tensor ? show(mask.shape) : describe(mask),
    );
  }
  const entries = Uint8Array.from(mask.dataSync(), (entry) => (entry === 0 ? 0 : 1));
  if (!entries.includes(0)) return null;
  if (channelsLast) return entries;
  throw new UnsupportedError("mask", `the channels on the last axis, ${AS_TFJS}`, "another axis");
}

/** The arguments of a layer in a model file that are no others: Keras' own files have more. */
export function knownOnly(config: object, known: readonly string[]): object {
  return Object.fromEntries(Object.entries(config).filter(([key]) => known.includes(key)));
}
