// Reads what torch.save writes: a pickle, and the bytes of the storages that the pickle refers to. Since
// PyTorch 1.6 they are entries of a zip archive; before, they follow each other in the file
// (https://github.com/pytorch/pytorch/blob/main/torch/serialization.py: _save and _legacy_save).

import { StateError } from "../../errors.js";
import { viewOfBytes } from "../bytes.js";
import { unpickle } from "../pickle.js";
import { PyObject } from "../python.js";
import { widthOf } from "../safetensors.js";
import { entriesOf } from "../zip.js";
import { Tensors } from "./tensors.js";

/** The value that was saved, from a file of either kind. Tensors in it satisfy `isTensor` of tensors.ts. */
export const savedIn = (file: Uint8Array, isArchive: boolean): unknown =>
  isArchive ? inArchive(file) : inRow(file);

/** Reads an archive, as of PyTorch 1.6: {name}/data.pkl, and {name}/data/{key} for every storage. */
function inArchive(file: Uint8Array): unknown {
  const entries = entriesOf(file);
  const pickle = [...entries.keys()].find((name) => /^[^/]*\/data\.pkl$/.test(name)) ?? "";
  const root = pickle.slice(0, -"data.pkl".length);
  checkOrder(entries.get(`${root}byteorder`)?.[0] !== BIG);
  const tensors = new Tensors((key) => entries.get(`${root}data/${key}`));
  const none = new Uint8Array(0);
  return unpickle(entries.get(pickle) ?? none, 0, tensors, file.length).value;
}

/** The first letter of "big", which the archive's entry `byteorder` contains on big-endian machines. */
const BIG = 0x62;

function checkOrder(little: boolean): void {
  if (!little) throw new StateError("bytes", "little-endian values", "big-endian ones");
}

/**
 * Reads a file from before PyTorch 1.6. It begins with five pickles: a magic number, a version, facts about
 * the machine, the value that was saved, and the keys of the storages. Then the storages follow in the order
 * of these keys, each as the number of its values in eight bytes and its bytes.
 */
function inRow(file: Uint8Array): unknown {
  const places = new Map<unknown, Uint8Array>();
  const tensors = new Tensors((key) => places.get(key));
  let at = 0;
  const values = Array.from({ length: 5 }, () => {
    const { value, end } = unpickle(file, at, tensors, file.length);
    at = end;
    return value;
  });
  const [, , machine, saved, keys] = values;
  checkOrder(!(machine instanceof PyObject) || machine.items?.get("little_endian") !== false);
  for (const key of Array.isArray(keys) ? keys : []) {
    const { length = 0, dtype = "" } = tensors.storages.get(key) ?? {};
    const begin = at + 8;
    // An unknown type makes `at` NaN, which the comparison below refuses.
    at = begin + length * (widthOf(dtype) ?? NaN);
    if (!(at <= file.length && viewOfBytes(file).getBigInt64(begin - 8, true) === BigInt(length))) {
      throw new StateError(
        "bytes",
        `a storage of ${length} values of type ${dtype || "unknown"} at ${begin - 8}`,
        "other bytes: truncated, damaged, or of an unknown type",
      );
    }
    places.set(key, file.subarray(begin, at));
  }
  return saved;
}
