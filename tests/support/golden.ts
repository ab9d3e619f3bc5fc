// Reads the golden files in tests/golden, whose README says what is in them. Arrays are written there as "f32:" or
// "f64:" and the base64 of their little-endian bytes, so that no bit is lost.

import { readdirSync, readFileSync } from "node:fs";

export type ChannelsFirst = "NC" | "NCL" | "NCHW" | "NCDHW";

export interface Results {
  y: Float64Array;
  dx: Float64Array;
  /** `null` if the module has `affine=False`. */
  dgamma: Float64Array | null;
  dbeta: Float64Array | null;
}

export interface Running {
  runningMean: Float64Array;
  runningVariance: Float64Array;
}

/** One forward and backward pass, by PyTorch's float32 module and by its float64 module. */
export interface Pass<Extra = unknown> {
  shape: number[];
  x: Float32Array;
  dy: Float32Array;
  gamma: Float32Array | null;
  beta: Float32Array | null;
  float32: Results & Extra;
  float64: Results & Extra;
}

/** A training step, with `num_batches_tracked` and the running averages after it. */
export type TorchStep = Pass<Running> & { batchesTracked: number };

export interface TorchCase {
  name: string;
  layout: ChannelsFirst;
  channels: number;
  /** The options given to the PyTorch module; those left out have PyTorch's defaults. */
  options: { eps?: number; momentum?: number | null; affine?: boolean };
  steps: TorchStep[];
  eval: Pass;
}

export interface OnnxCase {
  name: string;
  attributes: { epsilon?: number; momentum?: number; training_mode?: number };
  shape: number[];
  x: Float32Array;
  scale: Float32Array;
  bias: Float32Array;
  inputMean: Float32Array;
  inputVariance: Float32Array;
  /** Only a node in training mode has outputs other than y. */
  expected: { y: Float64Array; outputMean?: Float64Array; outputVariance?: Float64Array };
}

/** A network of batch norm, ReLU and batch norm: trained on `before`, then given to `update_bn` with `batches`. */
export interface UpdateBnCase {
  name: string;
  layout: ChannelsFirst;
  channels: number;
  momentum: number | null;
  /** The parameters of the two layers. */
  parameters: { gamma: Float32Array; beta: Float32Array }[];
  before: { shape: number[]; x: Float32Array }[];
  batches: { shape: number[]; x: Float32Array }[];
  batchesTracked: number;
  /** The running averages of the two layers in the end, as float32 and as float64 modules give them. */
  layers: { float32: Running; float64: Running }[];
}

/** Cases of PyTorch's `torch.optim.swa_utils.update_bn`, which replaces running averages by exact statistics. */
export function updateBnCases(): UpdateBnCase[] {
  return read("updatebn") as UpdateBnCase[];
}

/** Sequences of training and test steps of PyTorch's BatchNorm1d, BatchNorm2d and BatchNorm3d. */
export function torchCases(): TorchCase[] {
  return ["batchnorm1d", "batchnorm2d", "batchnorm3d"].flatMap((name) => read(name) as TorchCase[]);
}

/** The ONNX package's own node tests of BatchNormalization. */
export function onnxCases(): OnnxCase[] {
  return read("onnx") as OnnxCase[];
}

/** Input and output of a layer of a network, as PyTorch or TensorFlow.js computed them in float32. */
export interface Evaluation {
  shape: number[];
  x: Float32Array;
  y: Float32Array;
}

/** A training step of a layer of a network, by PyTorch's float32 module. */
export interface NetworkStep extends Evaluation {
  dy: Float32Array;
  dx: Float32Array;
  dgamma: Float32Array | null;
  dbeta: Float32Array | null;
  runningMean: Float32Array;
  runningVariance: Float32Array;
  batchesTracked: number;
}

/** PyTorch's small network: how its batch norms were made, and what they give. */
export interface NetworkGolden {
  options: Record<string, { eps: number; momentum: number }>;
  /** The first key is the name of the file with the weights, the second that of the layer. */
  evaluations: Record<string, Record<string, Evaluation>>;
  step: Record<string, NetworkStep>;
}

/** The two layers of every ONNX model, one after the other. */
export interface ModelsGolden extends Evaluation {
  layers: Record<"a" | "b", Record<"scale" | "bias" | "mean" | "var", Float32Array>>;
}

/** A network that PyTorch exported to ONNX, and its outputs at test time. */
export interface OnnxNetwork {
  /** Axes of each batch norm's input, where `onnx.shape_inference` knows them. */
  ranks: (number | null)[];
  shape: number[];
  x: Float32Array;
  outputs: { shape: number[]; y: Float32Array }[];
}

export const networksGolden = (): Record<string, OnnxNetwork> =>
  (json("state/networks") as { networks: Record<string, OnnxNetwork> }).networks;
/** Axes of what single operations give, by its name. */
export const operatorsGolden = (): Record<string, number | null> =>
  (json("state/networks") as { operators: Record<string, number | null> }).operators;
export const networkGolden = (): NetworkGolden => json("state/network") as NetworkGolden;
export const modelsGolden = (): ModelsGolden => json("state/models") as ModelsGolden;
export const kerasGolden = (): Pick<NetworkGolden, "evaluations"> =>
  json("state/keras") as NetworkGolden;

/** By the file of torch.save, then by the batch norm in it: what PyTorch says of it, and what it gives. */
export type TorchFilesGolden = Record<
  string,
  Record<string, Evaluation & { eps: number; momentum: number | null; batchesTracked: number }>
>;
export const torchFilesGolden = (): TorchFilesGolden =>
  (json("state/torch/torch") as { files: TorchFilesGolden }).files;

/** Keras' own files: what was written into each, by layer. */
export const kerasFilesGolden = (): Record<
  string,
  Record<string, { weights: Record<string, Float32Array>; epsilon: number; momentum: number }>
> => json("state/keras-files") as ReturnType<typeof kerasFilesGolden>;

/** The bytes of a file in tests/golden/state. */
export const goldenBytes = (name: string): Uint8Array =>
  new Uint8Array(readFileSync(new URL(`../golden/state/${name}`, import.meta.url)));

/** A Keras model in tests/golden/state. */
export function kerasFiles(name: string): { model: string; weights: Record<string, Uint8Array> } {
  const folder = new URL(`../golden/state/${name}/`, import.meta.url);
  const shards = readdirSync(folder).filter((path) => path !== "model.json");
  return {
    model: readFileSync(new URL("model.json", folder), "utf8"),
    weights: Object.fromEntries(shards.map((path) => [path, goldenBytes(`${name}/${path}`)])),
  };
}

const read = (name: string): unknown[] => (json(name) as { cases: unknown[] }).cases;

function json(name: string): unknown {
  const file = new URL(`../golden/${name}.json`, import.meta.url);
  return JSON.parse(readFileSync(file, "utf8"), revive);
}

/** Makes inputs Float32Array and results Float64Array, whichever precision the results were computed in. */
function revive(key: string, value: unknown): unknown {
  if (typeof value === "string" && /^f(32|64):/.test(value)) return decode(value);
  if (RESULT_GROUPS.has(key)) return widen(value as Record<string, unknown>);
  const isPass = value !== null && typeof value === "object" && "dy" in value;
  return isPass ? { gamma: null, beta: null, ...value } : value;
}

const RESULT_GROUPS = new Set(["float32", "float64", "expected"]);

function widen(group: Record<string, unknown>): Record<string, unknown> {
  const wide = ([key, value]: [string, unknown]) => [
    key,
    value instanceof Float32Array ? Float64Array.from(value) : value,
  ];
  return Object.fromEntries(Object.entries(group).map(wide));
}

function decode(text: string): Float32Array | Float64Array {
  const bytes = Uint8Array.from(atob(text.slice(4)), (char) => char.charCodeAt(0));
  return text.startsWith("f32:") ? new Float32Array(bytes.buffer) : new Float64Array(bytes.buffer);
}
