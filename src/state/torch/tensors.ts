// The tensors in what torch.save writes: views of storages, whose bytes lie elsewhere in the file
// (https://github.com/pytorch/pytorch/blob/main/torch/_utils.py, whose _rebuild functions say what
// makes a tensor, and torch/serialization.py, persistent_id).

import { StateError } from "../../errors.js";
import { isCount } from "../bytes.js";
import type { PickleHooks } from "../pickle.js";
import { Global, PyObject } from "../python.js";
import { type Tensor, widthOf } from "../safetensors.js";

/** Our names for the types of storages, by theirs. */
const STORAGES = new Map([
  ["Float", "F32"],
  ["Double", "F64"],
  ["Half", "F16"],
  ["BFloat16", "BF16"],
  ["Long", "I64"],
  ["Int", "I32"],
  ["Short", "I16"],
  ["Char", "I8"],
  ["Byte", "U8"],
  ["Bool", "BOOL"],
  ["Untyped", "U8"],
]);
const NOTHING = new Uint8Array(0);

/** PyTorch's own limit. */
const MOST_AXES = 64;

/** Values in a row, which tensors are views of. */
interface Storage {
  readonly key: string;
  /** Ours, or PyTorch's where we have none. */
  readonly dtype: string;
  /** How many values. */
  readonly length: number;
}

/** A tensor of a file: its bytes are looked up when they are asked for. */
class SavedTensor implements Tensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly #read: () => Uint8Array;

  constructor(dtype: string, shape: readonly number[], read: () => Uint8Array) {
    this.dtype = dtype;
    this.shape = shape;
    this.#read = read;
  }

  /**
   * Its values in row-major order: a view of the file where they lie so, else a copy.
   *
   * @throws StateError for a tensor beyond its storage, a storage that the file does not hold, or what is
   * no tensor of plain values.
   */
  get data(): Uint8Array {
    return this.#read();
  }
}

/** True for a tensor of a file. */
export const isTensor = (value: unknown): value is Tensor => value instanceof SavedTensor;

/** What stands where a tensor should and is of a kind that is not read: named when it is asked for. */
export const unreadable = (kind: string, shape: readonly number[] = []): Tensor =>
  new SavedTensor(kind, shape, () => {
    throw new StateError("bytes", "a tensor of plain values", kind);
  });

/** True if values with these strides lie one behind the other, in row-major order. */
function isDense(shape: readonly number[], strides: readonly number[]): boolean {
  let dense = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== dense) return false;
    dense *= shape[axis]!;
  }
  return true;
}

/** Values with strides as values one behind the other. */
function gather(
  from: Uint8Array,
  size: number,
  shape: readonly number[],
  strides: readonly number[],
): Uint8Array {
  const result = new Uint8Array(shape.reduce((product, n) => product * n, size));
  const index = shape.map(() => 0);
  let source = 0;
  for (let at = 0; at < result.length; at += size) {
    for (let byte = 0; byte < size; byte++) result[at + byte] = from[source * size + byte]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      source += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      source -= shape[axis]! * strides[axis]!;
      index[axis] = 0;
    }
  }
  return result;
}

const isCounts = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length <= MOST_AXES && value.every(isCount);

/** What the pickles of a file say of storages, and what it makes of them. */
export class Tensors implements PickleHooks {
  /** Storages by key, as the pickle first names them. */
  readonly storages = new Map<unknown, Storage>();
  readonly #bytesOf: (key: string) => Uint8Array | undefined;

  /** @param bytesOf the bytes of the storage of a key; asked when a tensor is read. */
  constructor(bytesOf: (key: string) => Uint8Array | undefined) {
    this.#bytesOf = bytesOf;
  }

  /** A storage; or a class, beside which files before PyTorch 1.6 keep its source. */
  persistent(id: unknown): unknown {
    const [kind, type, key, , length, view] = Array.isArray(id) ? id : [];
    if (kind === "module") return type;
    // PyTorch before 0.4 could save views of storages.
    if (!(type instanceof Global) || typeof key !== "string" || !isCount(length) || view) {
      throw new StateError("bytes", "storages with a type, a key and a length", "other data");
    }
    const name = type.path.replace(/^.*\.|Storage$/g, "");
    const storage = this.storages.get(key) ?? { key, dtype: STORAGES.get(name) ?? name, length };
    this.storages.set(key, storage);
    return storage;
  }

  call(path: string, args: readonly unknown[]): unknown {
    const [first, , inner] = args;
    if (!/^torch\._tensor\._rebuild_from_type(_v2)?$/.test(path)) return this.#rebuilt(path, args);
    // A function, the type of its result, arguments, attributes.
    const known = first instanceof Global && Array.isArray(inner);
    return known ? this.#rebuilt(first.path, inner) : undefined;
  }

  /** The tensor that a function makes, `undefined` for one that is not known. */
  #rebuilt(path: string, args: readonly unknown[]): unknown {
    switch (path) {
      case "torch._utils._rebuild_tensor":
      case "torch._utils._rebuild_tensor_v2":
        return this.#view(args);
      case "torch._utils._rebuild_parameter":
      case "torch._utils._rebuild_parameter_with_state":
      case "torch.nn.parameter.Parameter":
        return isTensor(args[0]) ? args[0] : undefined;
      default:
        return undefined;
    }
  }

  /** A view of a storage. */
  #view([storage, offset, shape, strides, , , metadata]: readonly unknown[]): Tensor {
    if (!isStorage(storage) || !isCount(offset) || !isCounts(shape) || !isCounts(strides)) {
      throw new StateError("bytes", "tensors of a storage, an offset, sizes and strides", "others");
    }
    const { key, dtype, length } = storage;
    const size = widthOf(dtype);
    // All that metadata say of numbers is that they are to be negated.
    const negated = metadata instanceof PyObject && metadata.items !== null;
    if (size === undefined || negated) {
      return unreadable(`a tensor of ${negated ? "negated " : ""}${dtype}`, shape);
    }
    return new SavedTensor(dtype, shape, () => {
      if (shape.includes(0)) return NOTHING;
      const bytes = this.#bytesOf(key) ?? NOTHING;
      const end = shape.reduce((last, n, axis) => last + (n - 1) * strides[axis]!, offset + 1);
      // Not a number for fewer strides than sizes.
      if (!(end <= length && length * size <= bytes.length)) {
        throw new StateError(
          "bytes",
          `a tensor within storage ${key} of ${length} values, which has ${bytes.length} bytes`,
          `one of sizes [${shape}] and strides [${strides}] from value ${offset} on`,
        );
      }
      const rows = bytes.subarray(offset * size, end * size);
      return isDense(shape, strides) ? rows : gather(rows, size, shape, strides);
    });
  }
}

const isStorage = (value: unknown): value is Storage =>
  typeof value === "object" && value !== null && "key" in value;
