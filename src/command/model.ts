// Opens a model file, whatever its format, and loads its batch norms. What a file of the format may leave open,
// epsilon and momentum for instance, is taken from the options, or assumed, and it is said which.

import { readKerasFile } from "../hdf5.js";
import { type BatchNorm, type Layout, OptionError } from "../index.js";
import { readKeras, readModel, readOnnx } from "../state.js";
import { type Beside, besideOf, type ReadBeside } from "./beside.js";

/** A model file: its name for messages, its bytes, and a way to read the files beside it. */
export interface ModelInput {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly beside: ReadBeside;
}

/** What the user says about a file, because the file may not say it. */
export interface Facts {
  readonly eps?: number;
  readonly momentum?: number;
  readonly layout?: Layout;
  readonly key?: string;
}

/** `"keras"` are files of Keras itself, `.keras` and `.h5`; `"tfjs"` is a model.json with its weight files. */
export type ModelFormat = "torch" | "onnx" | "keras" | "tfjs" | "batchnorm-wasm";

/** Where a number comes from: the file, an option of the user, or the framework's default. */
export type Origin = "file" | "option" | "default";

/** A layer of a file, and where its numbers come from. */
export interface Loaded {
  readonly layer: BatchNorm;
  readonly epsilonFrom: Origin;
  readonly momentumFrom: Origin;
  /** What the reader said about the layer. */
  readonly warnings: readonly string[];
}

/** An open model file. */
export interface OpenModel {
  readonly format: ModelFormat;
  readonly layers: readonly string[];
  /** The name of a layer's module in PyTorch, if an ONNX model tells it. */
  readonly moduleOf: (name: string) => string | null;
  /** Throws what the reader throws. */
  readonly load: (name: string) => Loaded;
  /** The files beside the model, those that have been read so far among its keys. */
  readonly beside: Beside;
}

/** The frameworks' own defaults, PyTorch's of `eps` and Keras' of `epsilon`. */
const DEFAULT_EPSILON = { eps: 1e-5, epsilon: 1e-3 } as const;

/**
 * Opens a model file of any format that the package reads.
 *
 * @throws what the readers throw; OptionError for a fact that files of this format say themselves.
 */
export function openModel(input: ModelInput, facts: Facts): OpenModel {
  const beside = besideOf(input.beside);
  const { bytes } = input;
  if (isLayersJson(bytes)) return openTfjs(bytes, facts, beside);
  if (isKeras(bytes)) return openKeras(bytes, facts, beside);
  const file = readModel(bytes, facts.key === undefined ? {} : { key: facts.key });
  if (file.format === "onnx") return openOnnx(bytes, facts, beside);
  if (file.format === "torch") return opened("torch", file, facts, beside, "eps");
  refuse(facts, ["eps", "momentum", "layout"], "a file of save");
  const load = (name: string): Loaded => ({
    layer: file.load(name),
    epsilonFrom: "file",
    momentumFrom: "file",
    warnings: [],
  });
  return { format: "batchnorm-wasm", layers: file.layers, moduleOf: () => null, load, beside };
}

function openOnnx(bytes: Uint8Array, facts: Facts, beside: Beside): OpenModel {
  refuse(facts, ["eps"], "an ONNX model");
  const file = readOnnx(bytes, { external: beside });
  const moduleOf = (name: string): string | null => file.nodes[name]?.module ?? null;
  return { ...opened("onnx", file, facts, beside), moduleOf };
}

function openTfjs(bytes: Uint8Array, facts: Facts, beside: Beside): OpenModel {
  refuse(facts, ["eps", "key"], "a model.json");
  const file = readKeras({ model: bytes, weights: beside });
  // A graph has no momentum, and the reader then takes Keras' default.
  const graph = /"node"\s*:\s*\[/.test(textOf(bytes));
  const momentumFrom = graph ? "default" : "file";
  return opened("tfjs", file, facts, beside, null, momentumFrom);
}

function openKeras(bytes: Uint8Array, facts: Facts, beside: Beside): OpenModel {
  refuse(facts, ["key"], "a file of Keras");
  return opened("keras", readKerasFile(bytes), facts, beside, "epsilon");
}

/** A file as the readers return it, of whatever options. */
interface AnyFile {
  readonly layers: readonly string[];
  load(name: string, options: object): BatchNorm;
}

/**
 * The model of a file that a reader has read.
 *
 * @param epsilon the reader's name of the option for an epsilon that the file may lack, `null` if none lacks it.
 * @param said where the momentum comes from if the user does not give it and the file says epsilon.
 */
function opened(
  format: "torch" | "onnx" | "keras" | "tfjs",
  file: AnyFile,
  { eps, momentum, layout }: Facts,
  beside: Beside,
  epsilon: "eps" | "epsilon" | null = null,
  said: Origin = "file",
): OpenModel {
  const load = (name: string): Loaded => {
    const warnings: string[] = [];
    const given = {
      onWarning: (message: string) => void warnings.push(message),
      ...(momentum !== undefined && { momentum }),
      ...(layout !== undefined && { layout }),
    };
    const asSaid = loadWithEpsilon(file, name, given);
    const otherwise = asSaid === null ? "default" : said;
    const momentumFrom = momentum === undefined ? otherwise : "option";
    // PyTorch's reader lets an eps that is given overrule that of a whole module, Keras' reader does not.
    if (asSaid !== null && (eps === undefined || epsilon !== "eps")) {
      if (eps !== undefined && eps !== asSaid.epsilon) {
        warnings.push(
          `layer "${name}": the file says epsilon, ${asSaid.epsilon}; --eps is not used`,
        );
      }
      return { layer: asSaid, epsilonFrom: "file", momentumFrom, warnings };
    }
    warnings.length = 0;
    const used = eps ?? DEFAULT_EPSILON[epsilon!];
    const layer = file.load(name, { ...given, [epsilon!]: used });
    return { layer, epsilonFrom: eps === undefined ? "default" : "option", momentumFrom, warnings };
  };
  return { format, layers: file.layers, moduleOf: () => null, load, beside };
}

/** Loads a layer with the epsilon that the file says. Returns `null` if the file says none. */
function loadWithEpsilon(file: AnyFile, name: string, options: object): BatchNorm | null {
  try {
    return file.load(name, options);
  } catch (error) {
    if (error instanceof OptionError && /^eps(ilon)?:/.test(error.message)) return null;
    throw error;
  }
}

/** Throws for facts that a file of this kind says itself, so that they are not ignored in silence. */
function refuse(facts: Facts, names: readonly (keyof Facts)[], kind: string): void {
  const given = names.find((name) => facts[name] !== undefined);
  if (given === undefined) return;
  throw new OptionError(
    `--${given}: ${kind} says it itself, or has none, so that it cannot be given`,
  );
}

/** The first bytes of an HDF5 file. */
const HDF5 = [0x89, 0x48, 0x44, 0x46];
/** So far from the end of a zip archive the names of its entries are looked for. */
const DIRECTORY = 1 << 16;

/** True for `.h5` and `.keras`: HDF5, and a zip archive that lists Keras' file of weights at its end. */
export function isKeras(bytes: Uint8Array): boolean {
  if (HDF5.every((byte, i) => bytes[i] === byte)) return true;
  if (bytes[0] !== 0x50 || bytes[1] !== 0x4b) return false;
  return latin1(bytes.subarray(Math.max(0, bytes.length - DIRECTORY))).includes("model.weights.h5");
}

/** True for JSON that has what a model.json of TensorFlow.js has. (A file of safetensors begins with zeros too.) */
export function isLayersJson(bytes: Uint8Array): boolean {
  if (bytes.subarray(0, 16).includes(0)) return false;
  if (!/^(\xef\xbb\xbf)?\s*\{/.test(latin1(bytes.subarray(0, 64)))) return false;
  return /"modelTopology"\s*:/.test(textOf(bytes));
}

const latin1 = (bytes: Uint8Array): string => new TextDecoder("latin1").decode(bytes);
const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
