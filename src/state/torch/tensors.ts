// The tensors in what torch.save writes. A tensor is a view of a storage: a run of values, whose bytes lie
// outside of the pickle (https://github.com/pytorch/pytorch/blob/main/torch/_utils.py, whose _rebuild
// functions show how a tensor is described, and torch/serialization.py, persistent_id, for storages).

import { StateError } from "../../errors.js";
import { product } from "../../values/layout.js";
import { isCount } from "../bytes.js";
import { hasOwn } from "../keys.js";
import type { PickleHooks } from "../pickle.js";
import { Global, PyObject } from "../python.js";
import { type Tensor, widthOf } from "../safetensors.js";

/** The types of safetensors by the names that PyTorch gives to its classes of storages. */
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
/** The types without such a class. Their storages are of bytes, and each tensor names its type. */
const LATER = new Map([
  ["torch.uint16", "U16"],
  ["torch.uint32", "U32"],
  ["torch.uint64", "U64"],
  ["torch.float8_e4m3fn", "F8_E4M3"],
  ["torch.float8_e5m2", "F8_E5M2"],
]);
const NOTHING = new Uint8Array(0);

/** The most axes that a tensor can have, which is PyTorch's own limit. */
const MOST_AXES = 64;

/** A run of values in the file, which tensors are views of. */
interface Storage {
  readonly key: string;
  /** The type as safetensors calls it; PyTorch's name where STORAGES has none for it. */
  readonly dtype: string;
  /** How many values the storage has. */
  readonly length: number;
}

/** A tensor of a file. Its bytes are looked up when they are asked for, since most are never needed. */
class SavedTensor implements Tensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly unreadable: boolean;
  readonly #read: () => Uint8Array;

  constructor(dtype: string, shape: readonly number[], read: () => Uint8Array, unreadable = false) {
    this.dtype = dtype;
    this.shape = shape;
    this.unreadable = unreadable;
    this.#read = read;
  }

  /**
   * The bytes of its values in row-major order: a view of the file if the values lie in that order there,
   * else a copy.
   *
   * @throws StateError for a tensor that reaches beyond its storage, and for a storage that the file does not
   * hold.
   */
  get data(): Uint8Array {
    return this.#read();
  }
}

/** True for a tensor of a file. */
export const isTensor = (value: unknown): value is Tensor => value instanceof SavedTensor;

/**
 * Stands for a tensor of a kind that is not read, which is its type, in words. A file with such a tensor elsewhere can
 * still be read.
 */
export const unreadable = (kind: string, shape: readonly number[] = []): Tensor =>
  new SavedTensor(kind, shape, () => NOTHING, true);

/** True if values with these strides lie next to each other in row-major order. */
function isDense(shape: readonly number[], strides: readonly number[]): boolean {
  let dense = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== dense) return false;
    dense *= shape[axis]!;
  }
  return true;
}

/** Copies values with strides so that they lie next to each other in row-major order. */
function gather(
  from: Uint8Array,
  size: number,
  shape: readonly number[],
  strides: readonly number[],
): Uint8Array {
  const result = new Uint8Array(product(shape, size));
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

/** Turns what the pickles of a file say about storages and tensors into tensors. */
export class Tensors implements PickleHooks {
  /** The storages by key, each as the pickle describes it when it first names it. */
  readonly storages = new Map<unknown, Storage>();
  readonly #bytesOf: (key: string) => Uint8Array | undefined;

  /** @param bytesOf gives the bytes of the storage with a key; it is called when a tensor is read. */
  constructor(bytesOf: (key: string) => Uint8Array | undefined) {
    this.#bytesOf = bytesOf;
  }

  /**
   * What a persistent id stands for: a storage, or, in files from before PyTorch 1.6, a class, which comes
   * with its source code there. The source is ignored.
   */
  persistent(id: unknown): unknown {
    const [kind, type, key, , length, view] = Array.isArray(id) ? id : [];
    if (kind === "module") return type;
    // PyTorch before 0.4 could save a storage that is a view of another one; such files are refused.
    if (!(type instanceof Global) || typeof key !== "string" || !isCount(length) || view) {
      throw new StateError("bytes", "a storage that has a type, a key and a length", "another");
    }
    const name = type.path.replace(/^.*\.|Storage$/g, "");
    const storage = this.storages.get(key) ?? { key, dtype: STORAGES.get(name) ?? name, length };
    this.storages.set(key, storage);
    return storage;
  }

  call(path: string, args: readonly unknown[]): unknown {
    const [first, , inner] = args;
    if (!/^torch\._tensor\._rebuild_from_type(_v2)?$/.test(path)) return this.#rebuilt(path, args);
    // The arguments are a function, the type of its result, the function's arguments, and attributes.
    if (!(first instanceof Global && Array.isArray(inner))) return undefined;
    return this.#rebuilt(first.path, inner) ?? new PyObject(first);
  }

  /**
   * The tensor that a function of PyTorch makes; `undefined` for a function that is not known. A parameter is the tensor
   * that it is made of, or what stands for that if it is not known.
   */
  #rebuilt(path: string, args: readonly unknown[]): unknown {
    switch (path) {
      case "torch._utils._rebuild_tensor":
      case "torch._utils._rebuild_tensor_v2":
        return this.#view(args);
      case "torch._utils._rebuild_tensor_v3":
        return this.#later(args);
      case "torch._utils._rebuild_parameter":
      case "torch._utils._rebuild_parameter_with_state":
      case "torch.nn.parameter.Parameter":
        return args[0];
      default:
        return undefined;
    }
  }

  /** The tensor of one of the types LATER; `undefined` for any other. */
  #later([storage, ...view]: readonly unknown[]): Tensor | undefined {
    const [type, metadata] = view.splice(5);
    const dtype = type instanceof Global ? LATER.get(type.path) : undefined;
    if (dtype === undefined || !isStorage(storage) || storage.dtype !== "U8") return undefined;
    const { key, length } = storage;
    return this.#view([{ key, dtype, length: length / widthOf(dtype)! }, ...view, metadata]);
  }

  /** The tensor that is a view of a storage. */
  #view([storage, offset, shape, strides, , , metadata]: readonly unknown[]): Tensor {
    if (!isStorage(storage) || !isCount(offset) || !isCounts(shape) || !isCounts(strides)) {
      throw new StateError(
        "bytes",
        "a tensor that has a storage, an offset, sizes and strides",
        "another",
      );
    }
    const { key, dtype, length } = storage;
    const size = widthOf(dtype);
    // For real numbers, the one thing that metadata can say is that they must still be negated.
    const negated = metadata instanceof PyObject && metadata.items !== null;
    if (size === undefined || negated) {
      return unreadable(`a tensor of ${negated ? "negated " : ""}${dtype}`, shape);
    }
    return new SavedTensor(dtype, shape, () => {
      if (shape.includes(0)) return NOTHING;
      const bytes = this.#bytesOf(key) ?? NOTHING;
      const end = shape.reduce((last, n, axis) => last + (n - 1) * strides[axis]!, offset + 1);
      // If there are fewer strides than sizes, `end` is NaN, which the comparison refuses.
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
  typeof value === "object" && value !== null && hasOwn(value, "key");
