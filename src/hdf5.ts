/**
 * Reads the batch-norm layers of Keras' own files, `.keras` and `.h5`. It takes the bytes of a file and
 * returns its layers synchronously. It is an entry of its own so that users of `batchnorm-wasm/state` do not
 * have to bundle the reader of HDF5.
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
