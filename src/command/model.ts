// Opens a model file, whatever its format, and loads its batch norms. What a file of the format may leave open,
// epsilon and momentum for instance, is taken from the options, or assumed, and it is said which.

import { readKerasFile } from "../hdf5.js";
import { type BatchNorm, type Layout, OptionError } from "../index.js";
import { formatOf } from "../state/format.js";
import { readKeras, readModel, readOnnx } from "../state.js";
import { type Beside, besideOf, type ReadBeside } from "./beside.js";
import { CommandError } from "./failure.js";

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
  /** The config of a model of Keras, of which the file has weights alone: JSON. */
  readonly config?: Uint8Array;
  /** False if layers of such a file that have three arrays have no gamma. */
  readonly scale?: false;
  /** False if they have no beta. */
  readonly center?: false;
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
 * @throws what the readers throw; OptionError for a fact that files of this format say themselves; CommandError for JSON
 * of something else than a model.
 */
export function openModel(input: ModelInput, facts: Facts): OpenModel {
  const beside = besideOf(input.beside);
  const { bytes } = input;
  if (isLayersJson(bytes)) return openTfjs(bytes, facts, beside);
  const format = formatOf(bytes);
  if (format === "json") {
    throw new CommandError(
      "expected a model file, got JSON that is no model.json of TensorFlow.js; layers of this package (snapshot, " +
        "toJSON) are not read by this command, and an index lists other files: name those",
    );
  }
  if (format === "keras" || format === "hdf5") return openKeras(bytes, facts, beside);
  const file = readModel(bytes, facts.key === undefined ? {} : { key: facts.key });
  if (file.format === "onnx") return openOnnx(bytes, facts, beside);
  if (file.format === "torch") {
    checkFacts(facts, ["eps", "momentum", "layout", "key"], "a file of PyTorch");
    return opened("torch", file, facts, beside, "eps");
  }
  checkFacts(facts, [], "a file of save");
  const load = (name: string): Loaded => ({
    layer: file.load(name),
    epsilonFrom: "file",
    momentumFrom: "file",
    warnings: [],
  });
  return { format: "batchnorm-wasm", layers: file.layers, moduleOf: () => null, load, beside };
}

function openOnnx(bytes: Uint8Array, facts: Facts, beside: Beside): OpenModel {
  checkFacts(facts, ["momentum", "layout"], "an ONNX model");
  const file = readOnnx(bytes, { external: beside });
  const moduleOf = (name: string): string | null => file.nodes[name]?.module ?? null;
  return { ...opened("onnx", file, facts, beside), moduleOf };
}

function openTfjs(bytes: Uint8Array, facts: Facts, beside: Beside): OpenModel {
  checkFacts(facts, ["eps", "momentum", "layout"], "a model.json");
  const file = readKeras({ model: bytes, weights: beside });
  // A graph has no momentum, and the reader then takes Keras' default.
  const graph = /"node"\s*:\s*\[/.test(textOf(bytes));
  const momentumFrom = graph ? "default" : "file";
  return opened("tfjs", file, facts, beside, "epsilon", momentumFrom);
}

function openKeras(bytes: Uint8Array, facts: Facts, beside: Beside): OpenModel {
  const known = ["eps", "momentum", "layout", "config", "scale", "center"] as const;
  checkFacts(facts, known, "a file of Keras");
  const { config } = facts;
  const file = readKerasFile(bytes, config === undefined ? {} : { config });
  return opened("keras", file, facts, beside, "epsilon");
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
  { eps, momentum, layout, scale, center }: Facts,
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
      ...(scale === false && { scale }),
      ...(center === false && { center }),
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

/**
 * Throws for facts other than those that a file of this kind may lack: it says them itself, so that they would be
 * ignored in silence.
 */
function checkFacts(facts: Facts, known: readonly (keyof Facts)[], kind: string): void {
  const given = (Object.keys(facts) as (keyof Facts)[]).find((name) => !known.includes(name));
  if (given === undefined) return;
  const option = facts[given] === false ? `no-${given}` : given;
  throw new OptionError(
    `--${option}: ${kind} says it itself, or has none, so that it cannot be given`,
  );
}

/** True for JSON that has what a model.json of TensorFlow.js has. */
export const isLayersJson = (bytes: Uint8Array): boolean =>
  formatOf(bytes) === "json" && /"modelTopology"\s*:/.test(textOf(bytes));

const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
