// Reads and writes safetensors, a container for tensors that is common for PyTorch's weights. A file has
// the length of a header in eight bytes, the header in JSON, and the bytes of all tensors
// (https://huggingface.co/docs/safetensors, section Format, with the checks of its reference
// implementation).

import { describe, StateError } from "../errors.js";
import { product } from "../values/layout.js";
import { isCount, isObject, joined, jsonOf, textOf, utf8Of, viewOfBytes } from "./bytes.js";
import { checkFormat } from "./format.js";
import { lookUp } from "./keys.js";

/** A tensor of a file; `data` is a view of the file's bytes. */
export interface Tensor {
  readonly dtype: string;
  /** True for what stands for a tensor of a kind that is not read: its `dtype` says in words what it is. */
  readonly unreadable?: boolean;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** The contents of a file. */
export interface Safetensors {
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** The most bytes of a header, as in the reference implementation. */
const LONGEST_HEADER = 100_000_000;
/** The most bytes of one tensor's entry in the header: its name, type, shape and place. */
const LONGEST_ENTRY = 1 << 14;

/**
 * How many bytes a value of each type takes. The types are in the order of the reference implementation, which
 * writes tensors of the last type first.
 */
const SIZES: Readonly<Record<string, number>> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  C64: 8,
  F64: 8,
  I64: 8,
  U64: 8,
};
const TYPES = Object.keys(SIZES);

/** How many bytes a value of a type takes; `undefined` for a type that is not known. */
export const widthOf = (dtype: string): number | undefined => lookUp(SIZES, dtype);

/**
 * Reads a file, which the caller has as the argument `name`. Every tensor is checked to have as many bytes as its shape
 * and type need, and together the tensors must fill the file without gaps or overlaps. Only the header is copied.
 *
 * @throws ShapeError for what is no bytes; StateError for a file that is truncated, malformed or of another format.
 */
export function parse(name: string, bytes: unknown): Safetensors {
  const { file } = checkFormat(name, bytes, "a safetensors file", ["safetensors"]);
  if (file.length < 8) {
    throw new StateError("bytes", "a safetensors file", `${file.length} bytes: truncated`);
  }
  const length = Number(viewOfBytes(file).getBigUint64(0, true));
  if (length > Math.min(LONGEST_HEADER, file.length - 8)) {
    throw new StateError(
      "bytes",
      `a safetensors header of at most ${Math.min(LONGEST_HEADER, file.length - 8)} bytes`,
      `one of ${length}: truncated, or another format`,
    );
  }
  const data = file.subarray(8 + length);
  const found: [string, Tensor, begin: number, end: number][] = [];
  const names = new Set<string>();
  let metadata: Readonly<Record<string, string>> = {};
  for (const member of membersOf("header", file.subarray(8, 8 + length))) {
    const [name, entry] = entryOf(member);
    if (names.has(name)) throw new StateError("header", "each name once", `"${name}" twice`);
    names.add(name);
    if (name === "__metadata__") metadata = entry as Record<string, string>;
    else found.push(tensorOf(name, entry, data));
  }
  found.sort((a, b) => a[2] - b[2] || a[3] - b[3]);
  let filled = 0;
  for (const [name, , begin, end] of found) {
    if (begin !== filled) {
      throw new StateError(
        name,
        `data_offsets that begin at ${filled}, where other tensors end`,
        begin,
      );
    }
    filled = end;
  }
  if (filled !== data.length) {
    throw new StateError("bytes", `${filled} bytes of tensors, as the header says`, data.length);
  }
  return { tensors: new Map(found.map(([name, tensor]) => [name, tensor])), metadata };
}

/** A member of a JSON object: its text, `"name": value`, and how many levels of brackets the value has. */
interface Member {
  readonly text: Uint8Array;
  readonly depth: number;
}

/**
 * Splits a JSON object into its members, so that each can be checked and parsed by itself. Parsing a whole
 * text at once could take forty times its size in memory if it is made of brackets (360 MB for 8 MB, in
 * Node 20).
 */
function* membersOf(name: string, json: Uint8Array): Generator<Member> {
  let end = json.length;
  while (end > 0 && isSpace(json[end - 1]!)) end--;
  if (end < 2 || json[0] !== OPEN || json[end - 1] !== CLOSE) {
    throw new StateError(name, "a JSON object", "other text");
  }
  let [depth, deepest, quoted] = [0, 0, false];
  let begin = 1;
  while (isSpace(json[begin]!)) begin++;
  if (begin === end - 1) return;
  for (let i = begin; i < end; i++) {
    const byte = json[i]!;
    if (quoted) {
      if (byte === ESCAPE) i++;
      else if (byte === QUOTE) quoted = false;
    } else if (byte === QUOTE) quoted = true;
    else if (byte === OPEN || byte === OPEN_ARRAY) deepest = Math.max(deepest, ++depth);
    else if (depth > 0) depth -= byte === CLOSE || byte === CLOSE_ARRAY ? 1 : 0;
    else if (byte === COMMA || i === end - 1) {
      yield { text: json.subarray(begin, i), depth: deepest };
      [begin, deepest] = [i + 1, 0];
    }
  }
  if (begin !== end) throw new StateError(name, "a JSON object", "one that does not end");
}

const [OPEN, CLOSE, OPEN_ARRAY, CLOSE_ARRAY, QUOTE, ESCAPE, COMMA] = [...'{}[]"\\,'].map((char) =>
  char.charCodeAt(0),
);
const isSpace = (byte: number): boolean => byte === 32 || (byte >= 9 && byte <= 13);

/** Parses a member of the header into its name and value. */
function entryOf({ text, depth }: Member): [string, unknown] {
  const inside = textOf("header", text);
  // The metadata are an object of texts. A tensor's entry is an object that contains arrays.
  const isMetadata = /^\s*"__metadata__"\s*:/.test(inside);
  if (depth > (isMetadata ? 1 : 2) || (!isMetadata && text.length > LONGEST_ENTRY)) {
    throw new StateError("header", "entries of dtype, shape and data_offsets", describe(inside));
  }
  const entries = Object.entries(jsonOf("header", `{${inside}}`) as object);
  const [[name, value] = ["", null]] = entries;
  if (entries.length !== 1) throw new StateError("header", "an entry between its commas", "none");
  if (isMetadata && (!isObject(value) || Object.values(value).some((v) => typeof v !== "string"))) {
    throw new StateError("__metadata__", "texts by name", describe(value));
  }
  return [name, value];
}

function tensorOf(
  name: string,
  entry: unknown,
  data: Uint8Array,
): [string, Tensor, number, number] {
  const { dtype, shape, data_offsets: offsets } = isObject(entry) ? entry : {};
  if (typeof dtype !== "string" || !Array.isArray(shape) || !shape.every(isCount)) {
    throw new StateError(
      name,
      "a dtype and a shape of whole numbers",
      `${describe(dtype)} and ${describe(shape)}`,
    );
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw new StateError(name, "data_offsets of two whole numbers", describe(offsets));
  }
  const [begin, end] = offsets as [number, number];
  if (end < begin || end > data.length) {
    throw new StateError(name, `data_offsets within ${data.length} bytes`, `[${begin}, ${end}]`);
  }
  // Newer files may have types that are not known here. Their tensors are kept, but cannot be decoded.
  const size = widthOf(dtype);
  const bytes = size && product(shape, size);
  if (bytes !== undefined && bytes !== end - begin) {
    throw new StateError(
      name,
      `${bytes} bytes, as ${dtype} [${shape.join(", ")}] has`,
      end - begin,
    );
  }
  return [name, { dtype, shape, data: data.subarray(begin, end) }, begin, end];
}

/** Throws StateError for a tensor whose entry readers would refuse. */
function checkEntry(name: string, text: string): void {
  if (3 * text.length > LONGEST_ENTRY && utf8Of(text).length > LONGEST_ENTRY) {
    throw new StateError(
      describe(name),
      `a name with which an entry of the header is at most ${LONGEST_ENTRY} bytes`,
      `one of ${name.length} characters`,
    );
  }
}

/**
 * Writes a file of these tensors in the layout of the reference implementation. Tensors of the widest types
 * come first, those of the same type are sorted by name, and the header is padded with spaces to a multiple
 * of eight bytes.
 *
 * @throws StateError for a name that no file can have, and for a tensor of torch.save that is not of plain values.
 */
export function serialize({ tensors, metadata }: Safetensors): Uint8Array {
  const rank = ([, { dtype }]: [string, Tensor]): number => TYPES.indexOf(dtype);
  const sorted = [...tensors].sort(
    (a, b) => rank(b) - rank(a) || (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0),
  );
  const entries: string[] = [];
  if (Object.keys(metadata).length > 0) {
    entries.push(`"__metadata__":${JSON.stringify(metadata)}`);
  }
  let end = 0;
  for (const [name, { dtype, unreadable, shape, data }] of sorted) {
    if (unreadable) throw new StateError(name, "a tensor of plain values", dtype);
    const begin = end;
    end += data.length;
    const entry = { dtype, shape, data_offsets: [begin, end] };
    const text = `${JSON.stringify(name)}:${JSON.stringify(entry)}`;
    checkEntry(name, text);
    entries.push(text);
  }
  const text = utf8Of(`{${entries.join(",")}}`);
  const header = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(32);
  viewOfBytes(header).setBigUint64(0, BigInt(header.length - 8), true);
  header.set(text, 8);
  return joined([header, ...sorted.map(([, { data }]) => data)]);
}
