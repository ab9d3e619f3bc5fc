// What an HDF5 group holds: names and the addresses of objects, in a symbol table or in link messages
// (HDF5 File Format Specification, version 3.0, sections III.A.1, III.B to III.D, IV.A.2.c, g and r).

import { StateError } from "../../errors.js";
import { type Hdf5File, MESSAGE, type Message, malformed, NOWHERE } from "./file.js";

/** The address of the object that a name stands for, or what kind of link there is instead. */
export type Link = number | "soft" | "external";

/** The links of a group by name; none where the messages are those of no group. */
export function linksOf(file: Hdf5File, messages: readonly Message[]): Map<string, Link> {
  const links = new Map<string, Link>();
  for (const { type, at } of messages) {
    if (type === MESSAGE.symbolTable) readTable(file, at, links);
    else if (type === MESSAGE.link) readLink(file, at, links);
    else if (type === MESSAGE.linkInfo) checkInfo(file, at);
  }
  return links;
}

/** The entries of a symbol table: a B-tree of nodes whose names lie in a heap. */
function readTable(file: Hdf5File, at: number, links: Map<string, Link>): void {
  const heap = file.u64(at + 8);
  file.signature(heap, "HEAP");
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
    file.signature(node, "TREE");
    const [own, count] = [file.u8(node + 5), file.u16(node + 6)];
    if (file.u8(node + 4) !== 0 || (level !== -1 && own !== level - 1)) {
      throw malformed(`a B-tree node at ${node} of another kind or level`);
    }
    file.spend(24 + 16 * count);
    // A tree of level 0 has symbol table nodes below it.
    for (let i = count - 1; i >= 0; i--) {
      left.push({ node: file.u64(node + 32 + 16 * i), level: own });
    }
  }
}

/** The entries of a symbol table node, 40 bytes each. */
function readNode(file: Hdf5File, node: number, names: Uint8Array, links: Map<string, Link>) {
  file.signature(node, "SNOD");
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

/** A link message: a name, and where it leads. */
function readLink(file: Hdf5File, at: number, links: Map<string, Link>): void {
  const flags = file.u8(at + 1);
  let next = at + 2;
  const kind = flags & 8 ? file.u8(next++) : 0;
  if (flags & 4) next += 8; // the order in which links were made
  if (flags & 16) next += 1; // the character set, of which ASCII is UTF-8 too
  const width = 1 << (flags & 3);
  const length = file.number(next, width);
  next += width;
  file.spend(length);
  const name = file.text(next, length);
  links.set(name, kind === 0 ? file.u64(next + length) : kind === 1 ? "soft" : "external");
}

/** Throws where links lie in a fractal heap, which files of h5py's default versions have not. */
function checkInfo(file: Hdf5File, at: number): void {
  const heap = file.u64(at + 2 + (file.u8(at + 1) & 1 ? 8 : 0));
  if (heap !== NOWHERE) throw dense("links");
}

/** The error about what only `libver="latest"` writes. */
export const dense = (what: string): StateError =>
  new StateError(
    `bytes: expected an HDF5 file as h5py and Keras write it, got ${what} in a fractal heap, as ` +
      'libver="latest" writes them; rewrite the file with h5repack',
  );
