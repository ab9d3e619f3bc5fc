// Keras' own files for fuzz.ts: how they are damaged, and what counts as a right load.

import { type KerasFileLoadOptions, readKerasFile } from "batchnorm-wasm/hdf5";
import { goldenBytes } from "../support/golden.js";
import type { Format } from "./fuzz.js";
import { BYTES, deepJson, otherJson, pick, type Random, upTo } from "./mutations.js";
import { entriesOf } from "./zip-entries.js";
import { zip } from "./zip-files.js";

/** A number of eight bytes, an address as often as not, becomes another that the file has. */
function repoint(bytes: Uint8Array, next: Random): Uint8Array {
  const changed = bytes.slice();
  const view = new DataView(changed.buffer);
  const numbers: number[] = [];
  for (let at = 0; at + 8 <= bytes.length; at += 8) {
    const value = view.getBigUint64(at, true);
    if (value > 0 && value < bytes.length) numbers.push(at);
  }
  for (let i = 1 + upTo(next, 3); i > 0 && numbers.length > 0; i--) {
    const other = view.getBigUint64(pick(next, numbers), true);
    view.setBigUint64(pick(next, numbers), next() < 0.2 ? other + 8n : other, true);
  }
  return changed;
}

/** A byte that is not zero: most of a small HDF5 file is room for more. */
function another(bytes: Uint8Array, next: Random): Uint8Array {
  const changed = bytes.slice();
  for (let i = 1 + upTo(next, 3); i > 0; i--) {
    let at = upTo(next, bytes.length);
    while (at < bytes.length && changed[at] === 0) at++;
    if (at < bytes.length)
      changed[at] = next() < 0.5 ? pick(next, [0, 1, 8, 255]) : upTo(next, 256);
  }
  return changed;
}

const mutateHdf5 = (bytes: Uint8Array, next: Random): Uint8Array =>
  pick(next, [...BYTES, repoint, repoint, repoint, another, another, another])(bytes, next);

const options: KerasFileLoadOptions = {
  epsilon: 1e-3,
  scale: false,
  layout: "NC",
  onWarning: () => {},
};

const load = (file: Uint8Array) => readKerasFile(file).loadAll(options);

export const kerasFormats: Record<string, Format<Uint8Array>> = {
  h5: {
    seeds: [
      "functional.h5",
      "divided.h5",
      "weights.h5",
      "latest.h5",
      "half.weights.h5",
      "brain.weights.h5",
      "unnamed.weights.h5",
      "custom-numbered.h5",
    ].map((name) => goldenBytes(`keras-files/${name}`)),
    mutate: mutateHdf5,
    load,
  },
  "keras-file": {
    seeds: ["sequential", "nested", "tf-2.12", "subclassed"].map((name) =>
      goldenBytes(`keras-files/${name}.keras`),
    ),
    mutate(file, next) {
      if (next() < 0.2) return mutateHdf5(file, next);
      const entries = entriesOf(file).map(({ name, data }) => {
        if (name.endsWith(".h5"))
          return { name, data: next() < 0.5 ? mutateHdf5(data, next) : data };
        if (name !== "config.json" || next() < 0.3) return { name, data };
        const text = new TextDecoder().decode(data);
        const other =
          next() < 0.1 ? deepJson(text, next) : JSON.stringify(otherJson(JSON.parse(text), next));
        return { name, data: new TextEncoder().encode(other) };
      });
      if (next() < 0.05) entries.splice(upTo(next, entries.length), 1);
      return zip(entries);
    },
    load,
  },
};
