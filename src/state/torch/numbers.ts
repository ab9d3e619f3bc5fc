// Takes the numbers of a batch norm from the tensors of a PyTorch model.

import { StateError } from "../../errors.js";
import type { State } from "../../layer/snapshot.js";
import { decode, FLOATS, isCount, viewOfBytes, wholeOf } from "../bytes.js";
import { lookUp } from "../keys.js";
import { NO_COUNTER, type OnWarning } from "../layers.js";
import type { Tensor } from "../safetensors.js";
import { isPruned, keyOf, parameterKey } from "./names.js";

type Tensors = ReadonlyMap<string, Tensor>;

/**
 * The numbers of a layer. Its tensors are checked to have as many channels as its running mean.
 *
 * @param warn is called if the tensor that should count mini-batches holds no count.
 */
export function numbersOf(tensors: Tensors, name: string, warn: OnWarning): State {
  const runningMean = floats(tensors, keyOf(name, "running_mean"));
  const { length: channels } = runningMean;
  const parameter = (tensor: "weight" | "bias"): Float64Array | null => {
    const key = parameterKey(tensors, name, tensor);
    return key === null ? null : parameterAt(tensors, key, channels);
  };
  return {
    gamma: parameter("weight"),
    beta: parameter("bias"),
    runningMean,
    runningVariance: floats(tensors, keyOf(name, "running_var"), channels),
    ...counted(tensors, keyOf(name, "num_batches_tracked"), warn),
  };
}

/** The values [channels] of a parameter. If it was pruned, they are multiplied by its mask. */
export function parameterAt(tensors: Tensors, key: string, channels: number): Float64Array {
  const values = floats(tensors, key, channels);
  if (!isPruned(key)) return values;
  const mask = floats(tensors, key.replace(/orig$/, "mask"), channels);
  return values.map((value, c) => value * mask[c]!);
}

/**
 * The values of a tensor [channels], which has at least one channel.
 *
 * @throws StateError for a tensor that is missing, of another shape, or of no floating-point type.
 */
export function floats(tensors: Tensors, key: string, channels?: number): Float64Array {
  const tensor = tensors.get(key);
  const { dtype, shape } = tensor ?? { dtype: "", shape: [0] };
  const [length] = shape;
  const fits = shape.length === 1 && length! > 0 && length === (channels ?? length);
  const format = lookUp(FLOATS, dtype);
  if (fits && format) return decode(format, tensor!.data);
  throw new StateError(
    key,
    `F16, BF16, F32 or F64 [${channels ?? "channels"}]`,
    tensor ? show(tensor) : "none",
  );
}

/** A tensor's type and shape, for messages; of a tensor that is not read, what it is. */
const show = ({ dtype, unreadable, shape }: Tensor): string =>
  unreadable ? dtype : `${dtype} [${shape.join(", ")}]`;

/** Matches the types of whole numbers. */
const WHOLE = /^(I|U)\d+$|^BOOL$/;

/** The number in a tensor [] or [1] of any type; `null` for a tensor that does not hold one number. */
export function numberOf({ dtype, shape, data }: Tensor): number | null {
  if (shape.length > 1 || (shape[0] ?? 1) !== 1) return null;
  const format = lookUp(FLOATS, dtype);
  if (format) return decode(format, data)[0] ?? null;
  const kind = WHOLE.exec(dtype);
  return kind && wholeOf(data, kind[1] === "I");
}

/** The tensor that counts mini-batches, as PyTorch has it. */
export function counterOf(count: number, shape: readonly number[] = []): Tensor {
  const data = new Uint8Array(8);
  viewOfBytes(data).setBigInt64(0, BigInt(count), true);
  return { dtype: "I64", shape, data };
}

/**
 * How many mini-batches a module has counted, rounded down. PyTorch accepts a counter of any type, and the
 * counter of a model that was averaged with others need not be a whole number.
 */
function counted(
  tensors: Tensors,
  key: string,
  warn: OnWarning,
): { batchesSeen: number; ageKnown: boolean } {
  const tensor = tensors.get(key);
  if (tensor === undefined) return NO_COUNTER;
  const value = numberOf(tensor);
  const batchesSeen = Math.trunc(value ?? NaN);
  if (isCount(batchesSeen)) return { batchesSeen: batchesSeen + 0, ageKnown: true };
  const got = value ?? show(tensor);
  warn(
    `${key}: expected one number from 0 to 2^53 - 1, got ${got}: the age of the averages is unknown`,
  );
  return NO_COUNTER;
}
