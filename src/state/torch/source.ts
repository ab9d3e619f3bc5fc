// Finds the model in a file of PyTorch, which is a safetensors file or one that torch.save wrote.

import { describe, OptionError, StateError } from "../../errors.js";
import { product } from "../../values/layout.js";
import { checkFormat } from "../format.js";
import { parse, type Tensor, widthOf } from "../safetensors.js";
import { modelIn, normsOf, type StateDict } from "./models.js";
import { keyOf, TENSORS, wrapperOf } from "./names.js";
import { savedIn } from "./saved.js";

/** A model of a file, and the names of its batch norms. */
export interface Source extends StateDict {
  /** All of the file. */
  readonly file: Uint8Array;
  readonly metadata: Readonly<Record<string, string>>;
  /** What the names of all tensors begin with because the model was wrapped, `"module."` or "". */
  readonly wrapper: string;
  /** The names of its batch norms, without `wrapper`. */
  readonly layers: readonly string[];
}

/** How many bytes more than the file its tensors may have: several tensors may share the same bytes. */
const MOST_SHARED = 1 << 22;

/** The formats of PyTorch's files. */
export const FORMATS = ["torch", "torch-row", "safetensors"] as const;

/**
 * The model in a file.
 *
 * @param name what the caller calls the file, for messages.
 * @param key the key that leads to the model, where the file holds several.
 * @param all true if all tensors will be read, and not only those of batch norms.
 * @throws OptionError for a `key` that leads to no model; StateError for a file that is malformed, of another
 * format, or whose tensors take much more memory than the file.
 */
export function sourceOf(name: string, bytes: unknown, key: unknown, all: boolean): Source {
  const expected = "a PyTorch model, of torch.save or in safetensors";
  const { file, format } = checkFormat(name, bytes, expected, FORMATS);
  const saved = format === "torch" || format === "torch-row";
  if (!saved && key !== undefined) {
    throw new OptionError(
      "key",
      "none for a safetensors file, which holds one model",
      describe(key),
    );
  }
  const model = saved
    ? modelIn(savedIn(file, format === "torch"), key)
    : { ...parse(name, file), modules: new Map<never, never>() };
  const { tensors } = model;
  const norms = normsOf(model);
  const wanted = norms.flatMap((name) => TENSORS.map((tensor) => tensors.get(keyOf(name, tensor))));
  checkSizes(file, all ? tensors.values() : wanted);
  const wrapper = wrapperOf(tensors);
  const layers = norms.map((name) => `${name}.`.slice(wrapper.length, -1));
  return { metadata: { format: "pt" }, ...model, file, wrapper, layers };
}

/** The name that a module has in the file, which begins with the wrapper's prefix. */
export const inFile = ({ wrapper }: Source, name: string): string =>
  name === "" ? wrapper.slice(0, -1) : wrapper + name;

/** Throws StateError if the tensors would take much more memory than the file: strides can repeat values. */
function checkSizes(file: Uint8Array, tensors: Iterable<Tensor | undefined>): void {
  let total = 0;
  for (const tensor of tensors) {
    if (tensor === undefined || tensor.shape.includes(0)) continue;
    total += product(tensor.shape, widthOf(tensor.dtype) ?? 0);
  }
  if (total <= file.length + MOST_SHARED) return;
  throw new StateError(
    "bytes",
    `tensors of about as many bytes as the file, ${file.length}`,
    `ones of ${total}, which share or repeat their values`,
  );
}
