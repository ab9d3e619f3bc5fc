// What a file is, by its first bytes, so that a reader that is given another format says what it got
// and what to call. The signatures are those of the formats' own specifications: APPNOTE.TXT (zip),
// the HDF5 File Format Specification (superblock), GGUF (ggml/docs/gguf.md), the file identifiers of
// TensorFlow Lite's and ONNX Runtime's FlatBuffers schemas, numpy.lib.format, RFC 1952 (gzip), git-lfs'
// docs/spec.md, onnx.proto and saved_model.proto.

import { StateError } from "../errors.js";
import { viewOfBytes } from "./bytes.js";
import { directoryOf, isZip } from "./zip.js";

/** For each format what it is, and behind the colon what to do with it. */
const FORMATS = {
  empty: "no bytes: the download failed",
  torch: "a file of torch.save: readTorch reads it",
  "torch-row": "a file of torch.save before PyTorch 1.6: readTorch reads it",
  torchscript:
    "a TorchScript archive: torch.save(torch.jit.load(path).state_dict(), other), and readTorch reads it",
  safetensors: "a safetensors file: readTorch reads it",
  pickle: "a pickle that torch.save did not make: torch.save(arrays by name, path) in Python",
  numpy: "a NumPy archive (.npz): bn.runningMean.set(…) takes its numbers",
  npy: "a NumPy array (.npy): bn.runningMean.set(…) takes its numbers",
  keras: 'a Keras model (.keras): readKerasFile of "batchnorm-wasm/hdf5" reads it',
  hdf5: 'an HDF5 file (.h5): readKerasFile of "batchnorm-wasm/hdf5" reads those of Keras',
  zip: "a zip archive: unpack it",
  onnx: "an ONNX model: readOnnx reads it",
  ort: "a model of ONNX Runtime (.ort): readOnnx reads the .onnx file that it was made from",
  tflite: "a TensorFlow Lite model: its batch norms were folded when it was made from another",
  "saved-model":
    'a SavedModel: tf.keras.models.load_model(folder).save("model.h5") in Python, and readKerasFile',
  gguf: "a GGUF file: no model of llama.cpp has batch norms",
  gzip: 'gzip: unpack it, new DecompressionStream("gzip")',
  lfs: "a pointer of Git LFS: git lfs pull fetches the file",
  html: "a web page: the address is not that of the file",
  json:
    "JSON: readKeras({ model, weights }) reads the model.json of TensorFlow.js, BatchNorm.fromSnapshot a " +
    "snapshot; an index of several files only names them",
} as const;

/** A format that is known by its first bytes. */
export type Format = keyof typeof FORMATS;

/** The first byte of a safetensors file's header, `{`. */
const OPEN = 0x7b;

/** Beginnings, each from a byte on, as text whose characters are bytes. */
const BEGINNINGS: readonly (readonly [Format, number, string])[] = [
  ["hdf5", 0, "\x89HDF\r\n\x1a\n"],
  ["gguf", 0, "GGUF"],
  ["npy", 0, "\x93NUMPY"],
  ["gzip", 0, "\x1f\x8b"],
  ["tflite", 4, "TFL3"],
  ["ort", 4, "ORTM"],
  ["torch-row", 0, "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."],
  ["lfs", 0, "version https://git-lfs"],
];

/** How the fields of ONNX' ModelProto behind its version begin, from the second to the eighth. */
const AFTER_VERSION = [0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42];

/** The format of a file, `null` where its first bytes are those of none that is known. */
export function formatOf(bytes: Uint8Array): Format | null {
  if (bytes.length === 0) return "empty";
  // First, since it begins with a number, whose low bytes may be those of any other signature.
  if (bytes[8] === OPEN && viewOfBytes(bytes).getUint32(4, true) === 0) return "safetensors";
  if (isZip(bytes)) return archiveOf(bytes);
  const start = String.fromCharCode(...bytes.subarray(0, 4096));
  const known = BEGINNINGS.find(([, at, text]) => start.startsWith(text, at));
  if (known !== undefined) return known[0];
  if (bytes[0] === 0x80 && bytes[1]! >= 2 && bytes[1]! <= 5) return "pickle";
  const text = start.replace(/^(\xef\xbb\xbf)?\s*/, "");
  if (/^<(!doctype|html|head|\?xml|!--)/i.test(text)) return "html";
  if (/^[[{]\s*["[{\]}\d-]/.test(text)) return "json";
  // Protocol Buffers whose first field is a version: 1 and one graph, or another and what ONNX has next.
  if (bytes[0] !== 8 || !AFTER_VERSION.includes(bytes[2]!)) return null;
  return bytes[1] === 1 && bytes[2] === AFTER_VERSION[0] ? "saved-model" : "onnx";
}

/** What a zip archive is, by the names in it. */
function archiveOf(bytes: Uint8Array): Format {
  let names: string[];
  try {
    names = directoryOf(bytes).map(({ name }) => name);
  } catch {
    // Damaged: whichever reader takes it will say how.
    return "torch";
  }
  const has = (pattern: RegExp): boolean => names.some((name) => pattern.test(name));
  if (has(/^[^/]*\/(code\/|constants\.pkl$)/)) return "torchscript";
  if (has(/^[^/]*\/data\.pkl$/)) return "torch";
  if (has(/^config\.json$/) && has(/^model\.weights\.(h5|json)$/)) return "keras";
  return names.length > 0 && names.every((name) => name.endsWith(".npy")) ? "numpy" : "zip";
}

/**
 * The format of a file that a reader was given, `null` if it is not known: the reader finds out.
 *
 * @param expected what the reader reads, for the message.
 * @param read the formats that it reads.
 * @param name of the argument, for the message.
 * @throws StateError for a file of another format: what it is, and what to do with it.
 */
export function checkFormat(
  bytes: Uint8Array,
  expected: string,
  read: readonly Format[],
  name = "bytes",
): Format | null {
  const format = formatOf(bytes);
  if (format === null || read.includes(format)) return format;
  throw new StateError(name, expected, FORMATS[format]);
}
