// The report on a model file: its batch norms, and what is wrong with them. What is printed, as a table or as
// JSON, is made of this.

import { messageOf } from "./failure.js";
import { type Finding, findingsOf } from "./findings.js";
import {
  type Facts,
  type ModelFormat,
  type ModelInput,
  type OpenModel,
  type Origin,
  openModel,
} from "./model.js";
import { tidy } from "./text.js";

/** The smallest and the largest of some numbers, `null` if there are none that are finite. */
export interface Range {
  readonly min: number;
  readonly max: number;
}

/** A batch norm of a file. */
export interface LayerReport {
  readonly name: string;
  /** The name of the module in PyTorch, if an ONNX model tells it. */
  readonly module: string | null;
  readonly channels: number;
  readonly layout: string;
  readonly epsilon: number;
  readonly epsilonFrom: Origin;
  /** In the convention of the file's framework; `null` for the cumulative average. */
  readonly momentum: number | null;
  readonly momentumFrom: Origin;
  /** How many mini-batches entered the averages, `null` if the file does not say. */
  readonly batchesSeen: number | null;
  readonly variance: Range | null;
  /** `null` also for a layer without gamma. */
  readonly gamma: Range | null;
  readonly findings: readonly Finding[];
  readonly warnings: readonly string[];
}

/** A batch norm that could not be read. */
export interface BrokenLayer {
  readonly name: string;
  readonly error: string;
}

/** What a model file has. */
export interface FileReport {
  readonly file: string;
  readonly format: ModelFormat;
  /** Which value `momentum` is the weight of in files of this format. */
  readonly momentumIsWeightOf: "old" | "new";
  /** Whether files of this format count mini-batches. */
  readonly countsBatches: boolean;
  readonly layers: readonly LayerReport[];
  readonly broken: readonly BrokenLayer[];
}

/** Is called while layers are read, with how many are done and how many there are. */
export type OnLayer = (done: number, all: number) => void;

/**
 * Looks into a model file.
 *
 * @throws what the reader of the format throws if the file cannot be read at all. A layer that cannot be read is
 * among `broken`.
 */
export function inspectModel(input: ModelInput, facts: Facts, onLayer?: OnLayer): FileReport {
  const model = openModel(input, facts);
  const { format } = model;
  const countsBatches = format === "torch" || format === "batchnorm-wasm";
  const layers: LayerReport[] = [];
  const broken: BrokenLayer[] = [];
  for (const [i, name] of model.layers.entries()) {
    onLayer?.(i, model.layers.length);
    try {
      layers.push(layerReport(model, name));
    } catch (error) {
      broken.push({ name, error: messageOf(error) });
    }
  }
  const momentumIsWeightOf = format === "torch" ? "new" : "old";
  return { file: input.name, format, momentumIsWeightOf, countsBatches, layers, broken };
}

function layerReport(model: OpenModel, name: string): LayerReport {
  const { layer, epsilonFrom, momentumFrom, warnings } = model.load(name);
  const { decay } = layer;
  const momentum = model.format === "torch" && decay !== "cumulative" ? 1 - decay : decay;
  return {
    name,
    module: model.moduleOf(name),
    channels: layer.channels,
    layout: layer.layout,
    // ONNX has float32 here, and PyTorch's momentum is 1 minus our decay: without the digits of that rounding.
    epsilon: tidy(layer.epsilon),
    epsilonFrom,
    momentum: momentum === "cumulative" ? null : tidy(momentum),
    momentumFrom,
    batchesSeen: layer.ageKnown ? layer.batchesSeen : null,
    variance: rangeOf(layer.runningVariance),
    gamma: layer.gamma === null ? null : rangeOf(layer.gamma),
    // Only PyTorch's own files should count; a file of save says itself that the age is unknown.
    findings: findingsOf(layer, model.format === "torch"),
    warnings,
  };
}

function rangeOf(values: Iterable<number>): Range | null {
  let [min, max] = [Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    min = Math.min(min, value);
    max = Math.max(max, value);
  }
  return min <= max ? { min, max } : null;
}

/** True if something is wrong with the numbers of a layer. What the reader said is no finding. */
export const hasFindings = ({ layers }: FileReport): boolean =>
  layers.some(({ findings }) => findings.length > 0);
