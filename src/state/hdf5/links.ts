// Reads what an HDF5 group contains: the names and the addresses of objects. They are in a symbol table or
// in link messages (HDF5 File Format Specification, version 3.0, sections III.A.1, III.B to III.D,
// IV.A.2.c, g and r).

import { StateError } from "../../errors.js";
import { type Hdf5File, MESSAGE, type Message, malformed, NOWHERE } from "./file.js";

/** The address of the object that a name stands for; or the kind of link, if it leads somewhere else. */
export type Link = number | "soft" | "external";

/** The links of the object with these messages, by name. An object that is no group has none. */
export function linksOf(file: Hdf5File, messages: readonly Message[]): Map<string, Link> {
  const links = new Map<string, Link>();
  for (const { type, at } of messages) {
    if (type === MESSAGE.symbolTable) readTable(file, at, links);
    else if (type === MESSAGE.link) readLink(file, at, links);
    else if (type === MESSAGE.linkInfo) checkInfo(file, at);
  }
  return links;
}

/** Reads a symbol table: a B-tree of nodes with the entries, and a heap with their names. */
function readTable(file: Hdf5File, at: number, links: Map<string, Link>): void {
  const heap = file.u64(at + 8);
  file.checkLetters(heap, "HEAP");
  const size = file.u64(heap + 8);
  const names = file.slice(file.u64(heap + 24), size);
  file.spend(32 + size);
  const left = [{ node: file.u64(at), level: -1 }];
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    const { node, level } = next;
    if (level === 0) {
      readNode(file, node, names, links);
      continue;
    }
    file.checkLetters(node, "TREE");
    const [own, count] = [file.u8(node + 5), file.u16(node + 6)];
    if (file.u8(node + 4) !== 0 || (level !== -1 && own !== level - 1)) {
      throw malformed(`a B-tree node at ${node} of another kind or level`);
    }
    file.spend(24 + 16 * count);
    // The children of a node of level 0 are symbol table nodes, not nodes of the tree.
    for (let i = count - 1; i >= 0; i--) {
      left.push({ node: file.u64(node + 32 + 16 * i), level: own });
    }
  }
}

/** Reads a symbol table node, whose entries take 40 bytes each. */
function readNode(file: Hdf5File, node: number, names: Uint8Array, links: Map<string, Link>) {
  file.checkLetters(node, "SNOD");
  const count = file.u16(node + 6);
  file.spend(8 + 40 * count);
  for (let i = 0; i < count; i++) {
    const entry = node + 8 + 40 * i;
    const begin = file.u64(entry);
    const end = names.indexOf(0, begin);
    if (!(begin < names.length) || end === -1) throw malformed(`a name at ${begin} of its heap`);
    file.spend(end - begin);
    const name = file.text(names.byteOffset - file.bytes.byteOffset + begin, end - begin);
    const address = file.u64(entry + 8);
    links.set(name, file.u32(entry + 16) === 2 || address === NOWHERE ? "soft" : address);
  }
}

/** Reads a link message: a name, and where it leads. */
function readLink(file: Hdf5File, at: number, links: Map<string, Link>): void {
  const flags = file.u8(at + 1);
  let next = at + 2;
  const kind = flags & 8 ? file.u8(next++) : 0;
  if (flags & 4) next += 8; // skips the number that says in which order links were made
  if (flags & 16) next += 1; // skips the character set: ASCII or UTF-8, and both can be read as UTF-8
  const width = 1 << (flags & 3);
  const length = file.number(next, width);
  next += width;
  file.spend(length);
  const name = file.text(next, length);
  links.set(name, kind === 0 ? file.u64(next + length) : kind === 1 ? "soft" : "external");
}

/** Throws StateError if the links lie in a fractal heap. By default h5py does not write any. */
function checkInfo(file: Hdf5File, at: number): void {
  const heap = file.u64(at + 2 + (file.u8(at + 1) & 1 ? 8 : 0));
  if (heap !== NOWHERE) throw dense("links");
}

/** The error for links or attributes in a fractal heap, which h5py writes only with `libver="latest"`. */
export const dense = (what: string): StateError =>
  new StateError(
    "bytes",
    "an HDF5 file as h5py and Keras write it",
    `${what} in a fractal heap, as libver="latest" writes them; rewrite the file with h5repack`,
  );
