// The model in a file of PyTorch: safetensors, or what torch.save wrote.

import { describe, OptionError, StateError } from "../../errors.js";
import { checkFormat } from "../format.js";
import { parse, type Tensor, widthOf } from "../safetensors.js";
import { modelIn, normsOf, type StateDict } from "./models.js";
import { keyOf, TENSORS, wrapperOf } from "./names.js";
import { savedIn } from "./saved.js";

/** A model: its tensors, and what the names of all begin with because it was wrapped. */
export interface Source extends StateDict {
  readonly metadata: Readonly<Record<string, string>>;
  readonly wrapper: string;
  /** The names of its batch norms in the model that was wrapped. */
  readonly layers: readonly string[];
}

/** How many bytes the tensors of a model may have beyond those of its file, since some share theirs. */
const MOST_SHARED = 1 << 22;

const FORMATS = ["torch", "torch-row", "safetensors"] as const;

/** The model in a file; `key` names it among several, `all` says that more is wanted than its norms. */
export function sourceOf(file: Uint8Array, key: unknown, all: boolean): Source {
  const format = checkFormat(file, "a PyTorch model, of torch.save or in safetensors", FORMATS);
  const saved = format === "torch" || format === "torch-row";
  if (!saved && key !== undefined) {
    throw new OptionError(
      "key",
      "none for a safetensors file, which holds one model",
      describe(key),
    );
  }
  const model = saved ? modelIn(savedIn(file, format === "torch"), key) : inSafetensors(file);
  const { tensors } = model;
  const norms = normsOf(model);
  const wanted = norms.flatMap((name) => TENSORS.map((tensor) => tensors.get(keyOf(name, tensor))));
  checkSizes(file, all ? tensors.values() : wanted);
  const wrapper = wrapperOf(tensors);
  const layers = norms.map((name) => `${name}.`.slice(wrapper.length, -1));
  return { metadata: { format: "pt" }, ...model, wrapper, layers };
}

function inSafetensors(file: Uint8Array): StateDict & Pick<Source, "metadata"> {
  return { ...parse(file), modules: new Map() };
}

/** The name in the file of a module, by the one that it has in the model that was wrapped. */
export const inFile = ({ wrapper }: Source, name: string): string =>
  name === "" ? wrapper.slice(0, -1) : wrapper + name;

/** Throws where tensors of a file would take much more memory than the file. */
function checkSizes(file: Uint8Array, tensors: Iterable<Tensor | undefined>): void {
  let total = 0;
  for (const tensor of tensors) {
    if (tensor === undefined || tensor.shape.includes(0)) continue;
    total += tensor.shape.reduce((product, n) => product * n, widthOf(tensor.dtype) ?? 0);
  }
  if (total <= file.length + MOST_SHARED) return;
  throw new StateError(
    "bytes",
    `tensors of about as many bytes as the file, ${file.length}`,
    `ones of ${total}, which share or repeat their values`,
  );
}
