/**
 * The batch-norm layers of Keras' own files, `.keras` and `.h5`, apart from
 * `batchnorm-wasm/state` for the bytes that reading them takes. Bytes in, layers out, and synchronous.
 *
 * ```ts
 * import { readKerasFile } from "batchnorm-wasm/hdf5";
 *
 * const file = readKerasFile(await (await fetch("model.keras")).arrayBuffer());
 * console.log(file.layers); // the names of the batch norms
 * const layers = file.loadAll();
 * ```
 *
 * @module
 */

export type { Bytes } from "./state/bytes.js";
export {
  type KerasFileLoadOptions,
  type KerasFileOptions,
  readKerasFile,
} from "./state/keras/file.js";
export type { KerasLoadOptions } from "./state/keras/load.js";
export type { Given, OnWarning, StateFile } from "./state/layers.js";
