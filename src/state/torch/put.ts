// Puts the numbers of a batch norm into the tensors of a PyTorch model.

import { StateError } from "../../errors.js";
import type { BatchNorm } from "../../layer/batch-norm.js";
import { checkSeen } from "../../layer/running-averages.js";
import type { State } from "../../layer/snapshot.js";
import { decode, encode, FLOATS, holds } from "../bytes.js";
import type { OnWarning } from "../layers.js";
import type { Tensor } from "../safetensors.js";
import { isPruned, keyOf, parameterKey } from "./names.js";
import { counterOf, floats, numberOf, parameterAt } from "./numbers.js";

type Tensors = Map<string, Tensor>;

/** The numbers of a layer that training changes. */
export function stateOf(layer: BatchNorm): State {
  const { gamma, beta, runningMean, runningVariance, ageKnown } = layer;
  const batchesSeen = checkSeen("batchesSeen", layer.batchesSeen);
  return { gamma, beta, runningMean, runningVariance, batchesSeen, ageKnown };
}

/**
 * Puts the numbers of a layer into the tensors of a file. A tensor that the file has keeps its type, and if
 * its values did not change it keeps its bytes as well. New parameters are F32.
 *
 * @param averages the type of running averages that the file does not have yet.
 * @param warn is called if a variance becomes 0 in the type of its tensor; it is written all the same.
 */
export function put(
  tensors: Tensors,
  name: string,
  state: State,
  averages: "F32" | "F64",
  warn: OnWarning,
): void {
  putParameter(tensors, name, "weight", state.gamma);
  putParameter(tensors, name, "bias", state.beta);
  putFloats(tensors, keyOf(name, "running_mean"), state.runningMean, averages);
  const variance = keyOf(name, "running_var");
  putFloats(tensors, variance, state.runningVariance, averages);
  const { dtype, data } = tensors.get(variance)!;
  const written = decode(FLOATS[dtype]!, data);
  const lost = written.findIndex((value, c) => value === 0 && state.runningVariance[c] !== 0);
  if (lost >= 0) {
    warn(
      `${variance}[${lost}]: ${state.runningVariance[lost]} becomes 0 in ${dtype}, so that only eps is left ` +
        "under the square root",
    );
  }
  putCounter(tensors, keyOf(name, "num_batches_tracked"), state.batchesSeen);
}

function putParameter(
  tensors: Tensors,
  name: string,
  tensor: "weight" | "bias",
  values: ArrayLike<number> | null,
): void {
  if (values === null) return;
  const key = parameterKey(tensors, name, tensor) ?? keyOf(name, tensor);
  if (!isPruned(key)) putFloats(tensors, key, values, "F32");
  else if (!holds(values, parameterAt(tensors, key, values.length))) {
    throw new StateError(
      key,
      "the parameter of a pruned module unchanged",
      "other values; torch.nn.utils.prune.remove makes it one that can be written",
    );
  }
}

/** Puts numbers into the tensor of this key, which gets the type `fresh` if the file has none yet. */
export function putFloats(
  tensors: Tensors,
  key: string,
  values: ArrayLike<number>,
  fresh: "F32" | "F64",
): void {
  const { dtype } = tensors.get(key) ?? { dtype: fresh };
  if (tensors.has(key) && holds(values, floats(tensors, key, values.length))) return;
  const data = encode(key, FLOATS[dtype]!, values);
  tensors.set(key, { dtype, shape: [values.length], data });
}

/** Writes the counter as I64, as PyTorch does. A counter that holds this count already stays as it is. */
function putCounter(tensors: Tensors, key: string, count: number): void {
  const before = tensors.get(key);
  const number = before ? numberOf(before) : null;
  if (number !== null && Math.trunc(number) === count) return;
  tensors.set(key, counterOf(count, before && number !== null ? before.shape : []));
}
