// PyTorch's state_dict in safetensors: {name}.weight, bias, running_mean, running_var and
// num_batches_tracked of every batch-norm module
// (https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html).

import type { Kernels } from "../engine/kernels.js";
import { checkKeys, OptionError, StateError } from "../errors.js";
import type { BatchNorm } from "../layer/batch-norm.js";
import { torchOptions } from "../layer/frameworks.js";
import { checkSeen } from "../layer/running-averages.js";
import type { State } from "../layer/snapshot.js";
import { NO_OPTIONS } from "../values/check.js";
import type { Layout } from "../values/layout.js";
import { type Bytes, bytesOf, decode, encode, FLOATS, holds, viewOfBytes } from "./bytes.js";
import { constant, entriesOf, fileOf, layerOf, NO_COUNTER, type StateFile } from "./layers.js";
import { parse, type Safetensors, serialize, type Tensor } from "./safetensors.js";

/** Options of `load` and `loadAll` of {@link readTorch}: what a state_dict does not hold. */
export interface TorchLoadOptions {
  /** The module's `eps`, needed: a state_dict has it nowhere. PyTorch's default is 1e-5. */
  eps: number;
  /** Weight of the NEW value, or `null` for the cumulative average. Default 0.1. */
  momentum?: number | null;
  /** A layout with channels first. Default `"NC"`. */
  layout?: Layout;
  /** Kernels of your own. Default: one shared instance per realm. */
  kernels?: Kernels;
}

const LOAD_KEYS = ["eps", "momentum", "layout", "kernels"];

/** The tensors of a module. */
export const TENSORS = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"];

/** The key of a tensor of a module; the whole model's own name is "". */
export const keyOf = (name: string, tensor: string): string =>
  name === "" ? tensor : `${name}.${tensor}`;

/**
 * The batch-norm layers of a PyTorch model: of its `state_dict`, saved by `safetensors.torch.save_file`.
 * They go by the names that `model.named_modules()` has, `"layer1.0.bn1"` for instance; `""` is a
 * file of a single module's own. A layer counts as batch norm if it has `running_mean` and
 * `running_var`, as `BatchNorm1d`, `2d`, `3d` and `SyncBatchNorm` have (and `InstanceNorm` with
 * `track_running_stats`). `affine=False` leaves gamma and beta out; a file from before PyTorch 0.4.1
 * has no `num_batches_tracked`: `batchesSeen` is 1 then, and `ageKnown` false.
 *
 * Tensors are F16, BF16, F32 or F64. gamma and beta become float32, the averages float64.
 *
 * @param bytes the file; not copied, so leave it unchanged until the layers are loaded.
 * @throws ShapeError for what is no bytes; StateError for a file that is truncated or malformed.
 *
 * @example
 * const file = readTorch(await (await fetch("resnet18.safetensors")).arrayBuffer());
 * console.log(file.layers); // ["bn1", "layer1.0.bn1", …]
 * const { bn1 } = file.loadAll({ eps: 1e-5, layout: "NCHW" });
 */
export function readTorch(bytes: Bytes): StateFile<TorchLoadOptions> {
  const { tensors } = parse(bytesOf("bytes", bytes));
  const ends = /(^|\.)running_mean$/;
  const layers = [...tensors.keys()]
    .filter((key) => ends.test(key))
    .map((key) => key.replace(ends, ""))
    .filter((name) => tensors.has(keyOf(name, "running_var")));
  return fileOf(layers, (name, options: TorchLoadOptions) => {
    checkKeys("options", options, LOAD_KEYS);
    if (options.eps === undefined) {
      throw new OptionError(
        `eps: expected the eps of module "${name}", since a state_dict holds tensors and eps is none of ` +
          "them (PyTorch's default is 1e-5; see print(model)), got none",
      );
    }
    return layerOf(torchOptions(options), numbersOf(tensors, name));
  });
}

/** The numbers of a layer, its tensors checked against each other. */
export function numbersOf(tensors: ReadonlyMap<string, Tensor>, name: string): State {
  const runningMean = floats(tensors, keyOf(name, "running_mean"));
  const channels = runningMean?.length ?? 0;
  if (runningMean === null || channels === 0) {
    throw new StateError(`${keyOf(name, "running_mean")}: expected at least one channel, got none`);
  }
  const of = (tensor: string): Float64Array | null => {
    const key = keyOf(name, tensor);
    const values = floats(tensors, key);
    if (values !== null && values.length !== channels) {
      throw new StateError(
        `${key}: expected ${channels} values, as running_mean has, got ${values.length}`,
      );
    }
    return values;
  };
  const runningVariance = of("running_var");
  if (runningVariance === null) {
    throw new StateError(`${keyOf(name, "running_var")}: expected a tensor, got none`);
  }
  const batchesSeen = counter(tensors, keyOf(name, "num_batches_tracked"));
  return {
    gamma: of("weight"),
    beta: of("bias"),
    runningMean,
    runningVariance,
    ...(batchesSeen === null ? NO_COUNTER : { batchesSeen, ageKnown: true }),
  };
}

/** The values of a tensor [channels], `null` if there is none. */
function floats(tensors: ReadonlyMap<string, Tensor>, key: string): Float64Array | null {
  const tensor = tensors.get(key);
  if (tensor === undefined) return null;
  const { dtype, shape, data } = tensor;
  if (shape.length !== 1 || !Object.hasOwn(FLOATS, dtype)) {
    throw new StateError(
      `${key}: expected F16, BF16, F32 or F64 of one axis, got ${dtype} [${shape.join(", ")}]`,
    );
  }
  return decode(FLOATS[dtype]!, data);
}

/** The value of a counter, `null` if there is none. */
function counter(tensors: ReadonlyMap<string, Tensor>, key: string): number | null {
  const tensor = tensors.get(key);
  if (tensor === undefined) return null;
  const { dtype, data } = tensor;
  const count =
    dtype === "I64" && data.length === 8 ? viewOfBytes(data).getBigInt64(0, true) : null;
  if (count === null || count < 0 || count > Number.MAX_SAFE_INTEGER) {
    throw new StateError(
      `${key}: expected one I64 from 0 to 2^53 - 1, got ${count ?? `${dtype} [${tensor.shape.join(", ")}]`}`,
    );
  }
  return Number(count);
}

/** Options of {@link writeTorch} and {@link save}. */
export interface WriteOptions {
  /** A safetensors file to write the layers into: all that is not theirs stays as it is. */
  into?: Bytes;
}

/**
 * A PyTorch `state_dict` in safetensors, for `safetensors.torch.load_file` and
 * `model.load_state_dict`. Tensors are F32, or, written `into` a file, of the types that they have
 * there: gamma, beta and averages are rounded to them. `running_var` is an average of the variance
 * that `runningVarianceOf` names; PyTorch's own is `"sample"`, and `eval` is the same for either.
 *
 * PyTorch's modules have both parameters or neither (`affine`): one that is left out beside the other
 * is written as ones or zeros. Of a layer whose age is unknown no `num_batches_tracked` is written;
 * PyTorch then counts from 0. Not in the file, and for you to set on the module: `eps` and `momentum`
 * (1 - decay).
 *
 * @param layers by the names of their modules, `"layer1.0.bn1"` for instance.
 * @returns the bytes of the file.
 * @throws OptionError for what is no layer; ShapeError for an `into` that is no bytes; StateError for a
 * file `into` that is malformed or has
 * tensors of other channels under these names, and for a value that its type there cannot hold.
 *
 * @example
 * const file = writeTorch({ bn1, bn2 }, { into: original }); // the model with new statistics
 */
export function writeTorch(
  layers: Readonly<Record<string, BatchNorm>>,
  options: WriteOptions = NO_OPTIONS,
): Uint8Array {
  const entries = entriesOf(layers);
  const { tensors, metadata } = originalOf(options);
  const written = new Map(tensors);
  for (const [name, layer] of entries) {
    const has = (tensor: string): boolean => tensors.has(keyOf(name, tensor));
    const affine = layer.gamma !== null || layer.beta !== null;
    const or = (values: Float32Array | null, tensor: string, value: number) =>
      values ?? (affine || has(tensor) ? constant(layer.channels, value) : null);
    const gamma = or(layer.gamma, "weight", 1);
    const beta = or(layer.beta, "bias", 0);
    put(written, name, { ...stateOf(layer), gamma, beta }, "F32");
    if (!layer.ageKnown) written.delete(keyOf(name, "num_batches_tracked"));
  }
  return serialize({ tensors: written, metadata });
}

/** The file to write into, or an empty one, marked as those of PyTorch are. */
export function originalOf(options: WriteOptions): Safetensors {
  checkKeys("options", options, ["into"]);
  return options.into === undefined
    ? { tensors: new Map(), metadata: { format: "pt" } }
    : parse(bytesOf("into", options.into));
}

/** What training changes of a layer. */
export function stateOf(layer: BatchNorm): State {
  const { gamma, beta, runningMean, runningVariance, ageKnown } = layer;
  const batchesSeen = checkSeen("batchesSeen", layer.batchesSeen);
  return { gamma, beta, runningMean, runningVariance, batchesSeen, ageKnown };
}

/**
 * Puts the numbers of a layer among the tensors of a file, in place of those it has there and in their
 * types; averages that it has not there in the type given.
 */
export function put(
  tensors: Map<string, Tensor>,
  name: string,
  state: State,
  averages: "F32" | "F64",
): void {
  const channels = state.runningMean.length;
  const set = (tensor: string, values: ArrayLike<number> | null, fresh: string): void => {
    const key = keyOf(name, tensor);
    if (values === null) {
      tensors.delete(key);
      return;
    }
    const before = tensors.get(key);
    const { dtype, shape } = before ?? { dtype: fresh, shape: [channels] };
    if (shape.length !== 1 || shape[0] !== channels || !Object.hasOwn(FLOATS, dtype)) {
      throw new StateError(
        `${key}: expected F16, BF16, F32 or F64 [${channels}], as the layer has, in the file to write ` +
          `into, got ${dtype} [${shape.join(", ")}]`,
      );
    }
    const format = FLOATS[dtype]!;
    if (before !== undefined && holds(values, decode(format, before.data))) return;
    tensors.set(key, { dtype, shape, data: encode(key, format, values) });
  };
  set("weight", state.gamma, "F32");
  set("bias", state.beta, "F32");
  set("running_mean", state.runningMean, averages);
  set("running_var", state.runningVariance, averages);
  const key = keyOf(name, "num_batches_tracked");
  const data = new Uint8Array(8);
  viewOfBytes(data).setBigInt64(0, BigInt(state.batchesSeen), true);
  tensors.set(key, { dtype: "I64", shape: tensors.get(key)?.shape ?? [], data });
}
