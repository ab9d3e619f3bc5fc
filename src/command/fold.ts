// Folds the batch norms of a whole model: the files of the folded model, and what became of each norm.

import { dirname, join, resolve } from "node:path";
import { foldKeras, foldOnnx } from "../state.js";
import { besideOf } from "./beside.js";
import type { Output } from "./disk.js";
import { CommandError } from "./failure.js";
import { isLayersJson, type ModelInput, openModel } from "./model.js";
import { NONE } from "./report.js";

/** A model that was folded. */
export interface FoldedModel {
  /** The files of the folded model, the model itself first. */
  readonly outputs: readonly Output[];
  readonly folded: readonly string[];
  readonly kept: readonly { readonly name: string; readonly reason: string }[];
}

/**
 * Folds a model.
 *
 * @param out the path of the folded model. The files that it needs beside it are put there.
 * @throws CommandError for a format of which whole networks cannot be folded, and for a model without batch norms; what
 * the reader throws.
 */
export function foldModel(input: ModelInput, out: string): FoldedModel {
  const beside = besideOf(input.beside);
  const around = (files: Readonly<Record<string, Uint8Array>>): Output[] =>
    Object.entries(files).map(([path, content]) => ({ path: join(dirname(out), path), content }));
  if (isLayersJson(input.bytes)) {
    const { model, weights, folded, kept } = foldKeras({ model: input.bytes, weights: beside });
    checkSome("tfjs", folded, kept);
    checkApart(
      input.name,
      out,
      Object.keys(weights).filter((path) => path in beside),
    );
    return { outputs: [{ path: out, content: model }, ...around(weights)], folded, kept };
  }
  const { format } = openModel(input, {});
  if (format !== "onnx") {
    throw new CommandError(
      "fold takes ONNX models and the model.json of TensorFlow.js: export this model as one of these",
    );
  }
  const { bytes, folded, kept } = foldOnnx(input.bytes, { external: beside });
  checkSome("onnx", folded, kept);
  // Tensors that did not change are still in the files beside the model, so these go with it to another folder.
  const moved = resolve(dirname(out)) !== resolve(dirname(input.name));
  const files: Record<string, Uint8Array> = {};
  for (const path of moved ? locationsIn(bytes) : []) {
    const file = input.beside(path);
    if (file !== null) files[path] = file;
  }
  return { outputs: [{ path: out, content: bytes }, ...around(files)], folded, kept };
}

/**
 * Throws if the folded model would take the weight files from a model that stays and still names them. Not even --force
 * does that, because no reader could read that model again.
 */
function checkApart(model: string, out: string, shared: readonly string[]): void {
  const [folderOfModel, folderOfOut] = [model, out].map((path) => resolve(dirname(path)));
  if (shared.length === 0 || resolve(model) === resolve(out) || folderOfModel !== folderOfOut)
    return;
  throw new CommandError(
    `the folded model would overwrite ${shared[0]}, which this model needs: name another folder, ` +
      `such as -o ${join(dirname(model), "folded")}/`,
  );
}

/** Throws for a model without batch norms: whoever folds one has mistaken it for another. */
function checkSome(format: "onnx" | "tfjs", ...norms: (readonly unknown[])[]): void {
  if (norms.some(({ length }) => length > 0)) return;
  throw new CommandError(
    `it has no batch norms, so there is nothing to fold (${NONE[format]}); nothing was written`,
  );
}

/**
 * The key of the entry that says in which file a tensor of an ONNX model is, and the tag of its value: a
 * StringStringEntryProto with `location` as its field 1, and its field 2, both with their lengths before them
 * (onnx.proto, TensorProto.external_data).
 */
const LOCATION = "\n\x08location\x12";

/** The names of the files beside an ONNX model that it takes tensors from. */
export function locationsIn(model: Uint8Array): Set<string> {
  const bytes = Buffer.from(model.buffer, model.byteOffset, model.length);
  const found = new Set<string>();
  for (let at = bytes.indexOf(LOCATION); at >= 0; at = bytes.indexOf(LOCATION, at + 1)) {
    const length = at + LOCATION.length;
    // No path takes more than two bytes for its length.
    const long = bytes[length]! >= 128;
    const size = long ? (bytes[length]! & 127) + 128 * bytes[length + 1]! : bytes[length]!;
    const begin = length + (long ? 2 : 1);
    found.add(bytes.toString("utf8", begin, begin + size));
  }
  return found;
}
