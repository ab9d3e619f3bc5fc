// The objects of an HDF5 file, which are groups and arrays, with what the readers of models need: objects
// by name, the texts of attributes, and the values of arrays (HDF5 File Format Specification, version 3.0,
// sections IV.A.2.h, i and m).
//
// Links to other places, virtual arrays, and arrays in other files are refused, as Keras refuses them
// (keras/src/saving/saving_lib.py), so that no file can refer to anything outside of itself. Chunked and
// compressed arrays are refused because Keras does not write any.

import { StateError } from "../../errors.js";
import { decode, FLOATS } from "../bytes.js";
import { Hdf5File, MESSAGE, malformed, NOWHERE } from "./file.js";
import { dense, type Link, linksOf } from "./links.js";
import { attributeOf, countOf, Heaps, shapeOf, type Type, textsOf, typeOf } from "./values.js";

/** The storage layouts that are not read, by their numbers, in words for the message. */
const REFUSED: Readonly<Record<number, string>> = {
  2: "in chunks, compressed or not; rewrite the file with h5repack -l CONTI -f NONE",
  3: "as a virtual one, in other arrays",
};

/** A group or an array. */
export class Hdf5Node {
  #links: ReadonlyMap<string, Link> | null = null;
  #attributes: ReadonlyMap<string, ReturnType<typeof attributeOf>> | null = null;
  readonly #children = new Map<string, Hdf5Node>();

  private constructor(
    readonly file: Hdf5File,
    readonly heaps: Heaps,
    readonly address: number,
    /** The names from the root to this object, each after a `/`. */
    readonly path: string,
  ) {}

  /**
   * The root group of a file.
   *
   * @throws StateError for bytes that are no HDF5 file, or a truncated one.
   */
  static root(bytes: Uint8Array): Hdf5Node {
    const file = new Hdf5File(bytes);
    return new Hdf5Node(file, new Heaps(file), file.root, "");
  }

  #message(type: number): number | undefined {
    return this.file.messages(this.address).find((message) => message.type === type)?.at;
  }

  /** True for an array, false for a group. */
  get isArray(): boolean {
    return this.#message(MESSAGE.dataspace) !== undefined;
  }

  /** The names of a group's links, in the order of the file. An array has none. */
  get names(): Iterable<string> {
    return this.#linked().keys();
  }

  #linked(): ReadonlyMap<string, Link> {
    this.#links ??= linksOf(this.file, this.file.messages(this.address));
    return this.#links;
  }

  /**
   * The object under a path of names with `/` between them, `null` if there is none.
   *
   * @throws StateError for a link that leads elsewhere.
   */
  get(path: string): Hdf5Node | null {
    let node: Hdf5Node = this;
    for (const name of path.split("/")) {
      if (name === "") continue;
      const child = node.#child(name);
      if (child === null) return null;
      node = child;
    }
    return node;
  }

  /** The objects directly in a group, without those that links to other places stand for. */
  get groups(): Hdf5Node[] {
    const inside = [...this.#linked()].filter(([, link]) => typeof link === "number");
    return inside.map(([name]) => this.#child(name)!);
  }

  #child(name: string): Hdf5Node | null {
    const known = this.#children.get(name);
    if (known !== undefined) return known;
    const address = this.#linked().get(name);
    if (address === undefined) return null;
    const path = `${this.path}/${name}`;
    if (typeof address !== "number") {
      throw new StateError(
        "bytes",
        `what "${path}" stands for in the file itself`,
        `a link that is ${address}`,
      );
    }
    const node = new Hdf5Node(this.file, this.heaps, address, path);
    this.#children.set(name, node);
    return node;
  }

  /**
   * The texts of an attribute, in one list whatever its shape; `null` if there is no attribute of this name.
   *
   * @throws StateError for an attribute of another type, or one that may lie in a fractal heap.
   */
  texts(name: string): string[] | null {
    const { file } = this;
    if (this.#attributes === null) {
      const attributes = new Map<string, ReturnType<typeof attributeOf>>();
      for (const { type, at, size } of file.messages(this.address)) {
        if (type !== MESSAGE.attribute) continue;
        const found = attributeOf(file, at, size);
        attributes.set(found.name, found);
      }
      this.#attributes = attributes;
    }
    const found = this.#attributes.get(name);
    if (found !== undefined) return textsOf(file, this.heaps, found);
    const info = this.#message(MESSAGE.attributeInfo);
    if (info !== undefined && file.u64(info + 2 + (file.u8(info + 1) & 1 ? 2 : 0)) !== NOWHERE) {
      throw dense("attributes");
    }
    return null;
  }

  /**
   * The sizes of an array's axes.
   *
   * @throws StateError for an object that has no values.
   */
  get shape(): readonly number[] {
    const at = this.#message(MESSAGE.dataspace);
    const shape = at === undefined ? null : shapeOf(this.file, at);
    if (shape === null) throw new StateError("bytes", `values of "${this.path}"`, "none");
    return shape;
  }

  get #type(): Type {
    const at = this.#message(MESSAGE.datatype);
    if (at === undefined) throw malformed(`no type of "${this.path}"`);
    return typeOf(this.file, at);
  }

  /**
   * True for an array of floating-point numbers. HDF5 has no name for bfloat16, so Keras writes its values as
   * two bytes of an opaque type.
   */
  get isFloat(): boolean {
    const { kind, size } = this.#type;
    return kind === "float" || (kind === "opaque" && size === 2);
  }

  /**
   * Where the values of an array lie in the file, one after another: the address and the number of bytes.
   *
   * @throws StateError for an array that is kept in another way.
   */
  get place(): { readonly at: number; readonly length: number } {
    const { file, path } = this;
    if (this.#message(MESSAGE.external) !== undefined) {
      throw new StateError("bytes", `the values of "${path}" in the file`, "other files");
    }
    const layout = this.#message(MESSAGE.layout);
    if (layout === undefined) throw malformed(`no place of "${path}"`);
    const [version, kind] = [file.u8(layout), file.u8(layout + 1)];
    if (version < 3 || kind > 1) {
      throw new StateError(
        "bytes",
        `the values of "${path}" one after another, as Keras keeps them`,
        `them ${REFUSED[version < 3 ? -1 : kind] ?? `kept in a way of version ${version}`}`,
      );
    }
    const compact = kind === 0;
    const at = compact ? layout + 4 : file.u64(layout + 2);
    const stored = compact ? file.u16(layout + 2) : file.u64(layout + 10);
    const length = countOf(this.shape) * this.#type.size;
    if (at === NOWHERE || stored < length) {
      const got = at === NOWHERE ? 0 : stored;
      throw new StateError("bytes", `the ${length} bytes of "${path}"`, got);
    }
    file.check(at, length);
    return { at, length };
  }

  /**
   * The values of an array of float16, bfloat16, float32 or float64.
   *
   * @throws StateError for an array of another type, or one that does not lie in the file in one piece.
   */
  values(): Float64Array {
    const { at, length } = this.place;
    const type = this.#type;
    this.file.claim(this.path, length);
    const bytes = this.file.slice(at, length);
    if (type.kind === "float") {
      return decode(type.format, type.big ? swapped(bytes, type.size) : bytes);
    }
    if (this.isFloat && this.texts("dtype")?.[0] === "bfloat16") return decode(FLOATS.BF16!, bytes);
    throw new StateError(
      "bytes",
      `float16, bfloat16, float32 or float64 in "${this.path}"`,
      "another type",
    );
  }
}

/** Reverses the order of the bytes in each number of `size` bytes. */
function swapped(bytes: Uint8Array, size: number): Uint8Array {
  return bytes.map((_, i) => bytes[i - (i % size) + size - 1 - (i % size)]!);
}
