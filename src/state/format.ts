// Tells the format of a file by its first bytes. So a reader that is given a file of another format can
// say in its error what the file is and which function reads it. The signatures are those of the formats'
// own specifications: APPNOTE.TXT (zip), the HDF5 File Format Specification (superblock), GGUF
// (ggml/docs/gguf.md), the file identifiers of TensorFlow Lite's and ONNX Runtime's FlatBuffers schemas,
// numpy.lib.format, RFC 1952 (gzip), git-lfs' docs/spec.md, onnx.proto and saved_model.proto.

import { describe, StateError } from "../errors.js";
import { bytesOf, jsonOf, textOf, viewOfBytes } from "./bytes.js";
import { directoryOf, isZip } from "./zip.js";

const TORCH = "a file of torch.save: readTorch reads it";
const NUMPY = "arrays of NumPy: bn.runningMean.set(…) takes their numbers";
const KERAS = 'a file of Keras (.keras, .h5): readKerasFile of "batchnorm-wasm/hdf5" reads it';
/** For messages: what each format is, and after the colon what the user can do with such a file. */
const FORMATS = {
  empty: "no bytes: perhaps a download failed",
  torch: TORCH,
  "torch-row": TORCH,
  torchscript:
    'a TorchScript archive: in Python, torch.save(torch.jit.load(path).state_dict(), "model.pth"), then readTorch',
  safetensors: "a safetensors file: readTorch reads it, or load if save wrote it",
  pickle: "a pickle that torch.save did not make: in Python, torch.save(tensors by name, path)",
  numpy: NUMPY,
  npy: NUMPY,
  keras: KERAS,
  hdf5: KERAS,
  zip: "a zip archive: unpack it",
  onnx: "an ONNX model: readOnnx reads it",
  ort: "a model of ONNX Runtime (.ort): readOnnx reads the .onnx that it was made from",
  tflite: "a TensorFlow Lite model: its batch norms were folded when it was made",
  "saved-model":
    'a SavedModel: in Python, tf_keras.models.load_model(folder).save("model.h5"), then readKerasFile',
  gguf: "a GGUF file: no model of llama.cpp has batch norms",
  gzip: 'gzip: unpack it, new DecompressionStream("gzip")',
  lfs: "a pointer of Git LFS: git lfs pull fetches the file",
  html: "a web page: the address is not that of the file",
  json: "JSON: readKeras({ model, weights }) reads the model.json of TensorFlow.js, BatchNorm.fromSnapshot and FrozenBatchNorm.fromJSON that of a layer; an index lists other files",
} as const;

/** A format that can be told by the first bytes of a file. */
export type Format = keyof typeof FORMATS;

/** The first byte of a safetensors file's header, `{`. */
const OPEN = 0x7b;

/** The pickle of PyTorch's magic number, behind the protocol, and from protocol 4 on behind the length of a frame too. */
const MAGIC = "\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/** Signatures of formats: the byte where each begins, and its bytes as the characters of a text. */
const BEGINNINGS: readonly (readonly [Format, number, string])[] = [
  ["hdf5", 0, "\x89HDF\r\n\x1a\n"],
  ["gguf", 0, "GGUF"],
  ["npy", 0, "\x93NUMPY"],
  ["gzip", 0, "\x1f\x8b"],
  ["tflite", 4, "TFL3"],
  ["ort", 4, "ORTM"],
  ["torch-row", 2, MAGIC],
  ["torch-row", 11, MAGIC],
  ["lfs", 0, "version https://git-lfs"],
];

/** The first bytes of the second to eighth field of ONNX' ModelProto. One of them follows its version. */
const AFTER_VERSION = [0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42];

/** The format of a file, `null` if its first bytes are those of no known format. */
export function formatOf(bytes: Uint8Array): Format | null {
  if (bytes.length === 0) return "empty";
  // Checked first: it begins with the header's length, whose bytes may look like any other signature.
  if (bytes[8] === OPEN && viewOfBytes(bytes).getUint32(4, true) === 0) return "safetensors";
  if (isZip(bytes)) return archiveOf(bytes);
  const start = String.fromCharCode(...bytes.subarray(0, 4096));
  const known = BEGINNINGS.find(([, at, text]) => start.startsWith(text, at));
  if (known !== undefined) return known[0];
  if (bytes[0] === 0x80 && bytes[1]! >= 2 && bytes[1]! <= 5) return "pickle";
  const text = start.replace(/^(\xef\xbb\xbf)?\s*/, "");
  if (/^<(!doctype|html|head|\?xml|!--)/i.test(text)) return "html";
  if (/^[[{]\s*["[{\]}\d-]/.test(text)) return "json";
  // Both remaining formats are Protocol Buffers whose first field is a version. In a SavedModel it is 1, and its graph
  // follows, a message, whose first byte is a small one; in ONNX one of its other fields follows. Its second field is a
  // text, the name of a program.
  if (bytes[0] !== 8 || !AFTER_VERSION.includes(bytes[2]!)) return null;
  if (bytes[1] !== 1 || bytes[2] !== AFTER_VERSION[0]) return "onnx";
  let at = 3;
  while (bytes[at]! > 127) at++; // Its length may take several bytes.
  return bytes[at + 1]! < 0x40 ? "saved-model" : "onnx";
}

/** The format of a zip archive, by the names of its entries. */
function archiveOf(bytes: Uint8Array): Format {
  let names: string[];
  try {
    names = directoryOf(bytes).map(({ name }) => name);
  } catch {
    // The archive is damaged. Its reader will fail with an error that says how.
    return "torch";
  }
  const has = (pattern: RegExp): boolean => names.some((name) => pattern.test(name));
  if (has(/^[^/]*\/(code\/|constants\.pkl$)/)) return "torchscript";
  if (has(/^[^/]*\/data\.pkl$/)) return "torch";
  if (has(/^config\.json$/) && has(/^model\.weights\.h5$/)) return "keras";
  return names.length > 0 && names.every((name) => name.endsWith(".npy")) ? "numpy" : "zip";
}

/** The bytes of a file, and its format. If that is `null`, the reader itself must find out whether it can read them. */
export interface Known {
  readonly file: Uint8Array;
  readonly format: Format | null;
}

/**
 * Checks that the argument `name` is bytes, and that they are not of a format that the reader does not read.
 *
 * @param expected what the reader reads, for the message.
 * @param read the formats that the reader reads.
 * @throws ShapeError for what is no bytes; StateError for a file of another format. The message says what it is, and
 * what to do with it.
 */
export function checkFormat(
  name: string,
  bytes: unknown,
  expected: string,
  read: readonly Format[],
): Known {
  const file = bytesOf(name, bytes);
  const format = formatOf(file);
  if (format === null || read.includes(format)) return { file, format };
  throw new StateError(name, expected, FORMATS[format]);
}

/**
 * The bytes of a file of values alone, which has no signature, given as the argument `name`.
 *
 * @throws ShapeError for what is no bytes; StateError for what servers and Git give in place of a file: a text.
 */
export function valuesFileOf(name: string, bytes: unknown): Uint8Array {
  const file = bytesOf(name, bytes);
  const format = formatOf(file);
  if (format === "lfs" || format === "html") {
    throw new StateError(name, "a file of values", FORMATS[format]);
  }
  return file;
}

/**
 * The text of JSON that is given as text or as bytes; `null` if it is given parsed.
 *
 * @param name what the caller calls it, for messages.
 * @param expected what it should be, for messages.
 */
export function jsonTextOf(name: string, json: unknown, expected: string): string | null {
  if (typeof json === "string") return json;
  if (describe(json) === "an Object") return null;
  return textOf(name, checkFormat(name, json, expected, ["json"]).file);
}

/** The value that such text holds. Throws StateError for a text, which JSON that was written twice holds. */
export function jsonIn(name: string, text: string): unknown {
  const json = jsonOf(name, text);
  if (typeof json !== "string") return json;
  throw new StateError(name, "JSON of an object", "JSON of a text; JSON.parse gives that text");
}
