// The files beside an ONNX model that hold some of its tensors
// (https://github.com/onnx/onnx/blob/main/docs/ExternalData.md).

import { describe, OptionError } from "../../errors.js";
import { type Bytes, describeFile } from "../bytes.js";
import { valuesFileOf } from "../format.js";
import { hasOwn } from "../keys.js";

/** The option `external`, each of whose files is read once. */
export class External {
  readonly #given: Readonly<Record<string, Bytes>>;
  readonly #files = new Map<string, Uint8Array>();

  /**
   * @param given the files by the location that the model names.
   * @throws OptionError if it is no object; ShapeError for a file that is not bytes; StateError for one that is not of values.
   */
  constructor(given: unknown) {
    if (describe(given) !== "an Object") {
      throw new OptionError("external", "bytes by location", describeFile(given));
    }
    this.#given = given as Readonly<Record<string, Bytes>>;
    for (const location of Object.keys(this.#given)) this.at(location);
  }

  /** The files so far. */
  get files(): ReadonlyMap<string, Uint8Array> {
    return this.#files;
  }

  /** The file at a location, which may have been added since; undefined if there is none. */
  at(location: string): Uint8Array | undefined {
    if (!this.#files.has(location) && hasOwn(this.#given, location)) {
      const name = `external[${JSON.stringify(location)}]`;
      this.#files.set(location, valuesFileOf(name, this.#given[location]));
    }
    return this.#files.get(location);
  }
}

/** The option `external`; undefined if it is left out. */
export const externalOf = (given: unknown): External | undefined =>
  given === undefined ? undefined : new External(given);
