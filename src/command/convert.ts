// Converts model files: what torch.save wrote becomes safetensors with all its tensors; of other files the batch
// norms are taken, into safetensors or into an ONNX model of nothing but norms.

import type { BatchNorm } from "../index.js";
import { formatOf } from "../state/format.js";
import { save, writeOnnx, writeTorch } from "../state.js";
import { CommandError, UsageError } from "./failure.js";
import { type Facts, type Loaded, type ModelInput, type OpenModel, openModel } from "./model.js";
import { notesOn } from "./notes.js";
import { counted } from "./text.js";

/** A file that was made of another. */
export interface Converted {
  readonly bytes: Uint8Array;
  /** What it has, and what the user should know about it. */
  readonly notes: readonly string[];
}

/** The formats that are written, by the ends of file names. */
const TARGETS = ["safetensors", "onnx"] as const;
type Target = (typeof TARGETS)[number];

/** Formats that are not written, by the ends of file names, and what can be done instead. */
const NOT_WRITTEN: Readonly<Record<string, string>> = {
  pt: "write .safetensors, which load_file of safetensors.torch reads",
  pth: "write .safetensors, which load_file of safetensors.torch reads",
  json: "writeKeras of batchnorm-wasm/state puts norms into a model of TensorFlow.js",
  keras: "this package only reads files of Keras",
  h5: "this package only reads files of Keras",
};

/**
 * The format to write, by the name of the file.
 *
 * @throws UsageError for one that is not written.
 */
export function targetOf(out: string): Target {
  const end = /\.([^./\\]+)$/.exec(out)?.[1]?.toLowerCase() ?? "";
  const target = TARGETS.find((each) => each === end);
  if (target !== undefined) return target;
  const advice = Object.hasOwn(NOT_WRITTEN, end)
    ? NOT_WRITTEN[end]
    : "end the name of the file in one of these";
  throw new UsageError(`-o ${out}: convert writes .safetensors and .onnx; ${advice}`);
}

/**
 * Converts a model file.
 *
 * @throws CommandError for what cannot be converted; UsageError for an option that is missing or has no meaning
 * here; what the readers and writers throw.
 */
export function convertModel(input: ModelInput, target: Target, facts: Facts): Converted {
  const model = openModel(input, facts);
  if (model.layers.length === 0) {
    throw new CommandError("it has no batch norms, and convert takes only models that have some");
  }
  if (target === "onnx") return toOnnx(model);
  if (model.format !== "torch" && model.format !== "batchnorm-wasm") return toSafetensors(model);
  if (formatOf(input.bytes) === "safetensors")
    throw new CommandError("it is a safetensors file already");
  return wholeToSafetensors(input, model, facts);
}

/** A state_dict with all its tensors. */
function wholeToSafetensors(input: ModelInput, model: OpenModel, facts: Facts): Converted {
  for (const name of ["eps", "momentum", "layout"] as const) {
    if (facts[name] === undefined) continue;
    throw new UsageError(`--${name}: a state_dict in safetensors has no place for it`);
  }
  const [name, { layer, epsilonFrom }] = layerOf(model);
  const warnings: string[] = [];
  const bytes = writeTorch(
    { [name]: layer },
    {
      into: input.bytes,
      onWarning: (message) => void warnings.push(message),
      ...(facts.key !== undefined && { key: facts.key }),
    },
  );
  const norms = counted(model.layers.length, "batch norm");
  const notes = [`the whole state_dict, ${norms} among its modules`, ...warnings];
  // Only the file of a whole module says them.
  if (epsilonFrom === "file")
    notes.push("without eps and momentum, for which a state_dict has no place");
  return { bytes, notes };
}

/**
 * A layer to write back as it is, which copies all other tensors: one that can be read, and whose counter is known,
 * as that of another would be left out.
 */
function layerOf(model: OpenModel): [string, Loaded] {
  const layers = model.layers.flatMap((name): [string, Loaded][] => {
    try {
      return [[name, model.load(name)]];
    } catch {
      return [];
    }
  });
  const found = layers.find(([, { layer }]) => layer.ageKnown) ?? layers[0];
  if (found !== undefined) return found;
  const [first] = model.layers;
  return [first!, model.load(first!)];
}

/** The norms in our own file, which is safetensors with PyTorch's names. It keeps epsilon, decay and layout too. */
function toSafetensors(model: OpenModel): Converted {
  const { layers, notes } = loadAll(model);
  const named = (name: string): string => model.moduleOf(name) ?? name;
  const names = new Set(model.layers.map(named));
  const unique = names.size === model.layers.length;
  const entries = Object.entries(layers);
  const renamed = Object.fromEntries(
    entries.map(([name, layer]) => [unique ? named(name) : name, layer]),
  );
  const inTorch = unique && model.layers.some((name) => model.moduleOf(name) !== null);
  return {
    bytes: save(renamed),
    notes: inTorch ? [...notes, "names are those of the modules in PyTorch"] : notes,
  };
}

/** The norms in an ONNX model, each a node with an input and an output of its own. */
function toOnnx(model: OpenModel): Converted {
  if (model.format === "onnx") throw new CommandError("it is an ONNX model already");
  const { layers, notes } = loadAll(model);
  const active = Object.entries(layers).filter(([, layer]) => layer.activation !== null);
  const warnings = ["its activation is not in the file: in ONNX that is a node of its own"];
  const said = active.map(([name]) => ({ name, warnings }));
  return { bytes: writeOnnx(layers), notes: [...notes, ...notesOn(said)] };
}

/** All layers of a model, none of whose epsilons is assumed. */
function loadAll(model: OpenModel): { layers: Record<string, BatchNorm>; notes: string[] } {
  const loaded = model.layers.map((name): [string, Loaded] => [name, model.load(name)]);
  if (loaded.some(([, { epsilonFrom }]) => epsilonFrom === "default")) {
    const of = model.format === "torch" ? "PyTorch's default is 1e-5" : "Keras' default is 0.001";
    throw new UsageError(`--eps: the file does not say it, so it has to be given (${of})`);
  }
  const layers = Object.fromEntries(loaded.map(([name, { layer }]) => [name, layer]));
  const said = loaded.map(([name, { warnings }]) => ({ name, warnings }));
  const assumed = loaded.some(([, { momentumFrom }]) => momentumFrom === "default");
  return {
    layers,
    notes: [
      `${counted(loaded.length, "batch norm")}, and nothing else of the network`,
      ...(assumed ? ["momentum is the framework's default, as the file does not say it"] : []),
      ...notesOn(said),
    ],
  };
}
