// The container: what the published format allows is read, and each thing that it forbids is refused
// in words of its own.

import { StateError } from "batchnorm-wasm";
import { readTorch, writeTorch } from "batchnorm-wasm/state";
import { describe, expect, test } from "vitest";
import { assertRefuses } from "../support/refuse.js";
import { container, safetensors } from "./files.js";

const f32 = (begin: number, end: number): object => ({
  dtype: "F32",
  shape: [(end - begin) / 4],
  data_offsets: [begin, end],
});
const MEAN = "a.running_mean";
const VARIANCE = "a.running_var";
const HEADER = { [MEAN]: f32(0, 8), [VARIANCE]: f32(8, 16) };
const DATA = new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer);

/** A file of another header, an object or text. */
const file = (header: unknown, data = DATA): Uint8Array => container(header, data);
const load = (bytes: Uint8Array) => readTorch(bytes).load("a", { eps: 1 });

describe("is read", () => {
  test.each<[string, unknown]>([
    ["a plain header", HEADER],
    ["white space after it, and within", `${JSON.stringify(HEADER, null, 2)}  \n`],
    ["tensors in any order", { [VARIANCE]: f32(8, 16), [MEAN]: f32(0, 8) }],
    ["a tensor of nothing, whatever its place", { ...HEADER, none: f32(0, 0), end: f32(16, 16) }],
    [
      "texts with brackets, quotes and commas",
      { ...HEADER, __metadata__: { 'a{"[,\\': '}]"\\,{' } },
    ],
  ])("%s", (_, header) => {
    const { runningMean, runningVariance } = load(file(header));
    expect([...runningMean, ...runningVariance]).toEqual([1, 2, 3, 4]);
  });

  test("no tensors", () => {
    for (const header of ["{}", "{ }"]) {
      expect(readTorch(file(header, new Uint8Array(0))).layers).toEqual([]);
    }
  });

  test("a mean without a variance is no layer", () => {
    expect(readTorch(file({ [MEAN]: f32(0, 8), other: f32(8, 16) })).layers).toEqual([]);
  });

  test("types that came later are carried along", () => {
    const later = { dtype: "F4", shape: [3], data_offsets: [16, 18] };
    const bytes = file({ ...HEADER, later }, Uint8Array.of(...DATA, 7, 8));
    const written = safetensors(writeTorch({ a: load(bytes) }, { into: bytes }));
    expect(written.tensors.get("later")).toEqual({
      dtype: "F4",
      shape: [3],
      data: Uint8Array.of(7, 8),
    });
  });

  test.each(["constructor", "toString", "__proto__"])(
    "a type %s is one that is not known",
    (dtype) => {
      const other = { dtype, shape: [3], data_offsets: [16, 18] };
      const bytes = file({ ...HEADER, other }, Uint8Array.of(...DATA, 7, 8));
      const written = safetensors(writeTorch({ a: load(bytes) }, { into: bytes }));
      expect(written.tensors.get("other")).toMatchObject({ dtype, data: Uint8Array.of(7, 8) });
    },
  );

  test("a counter keeps its shape", () => {
    const count = { dtype: "I64", shape: [1], data_offsets: [16, 24] };
    const data = Uint8Array.of(...DATA, 5, 0, 0, 0, 0, 0, 0, 0);
    const bytes = file({ ...HEADER, "a.num_batches_tracked": count }, data);
    const layer = load(bytes);
    expect(layer.batchesSeen).toBe(5);
    const { tensors } = safetensors(writeTorch({ a: layer }, { into: bytes }));
    expect(tensors.get("a.num_batches_tracked")).toMatchObject({ shape: [1] });
  });
});

describe("is refused", () => {
  const length = (value: bigint): Uint8Array => {
    const bytes = file(HEADER).slice();
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    return bytes;
  };
  const entry = (change: object): Uint8Array =>
    file({ ...HEADER, [MEAN]: { ...f32(0, 8), ...change } });
  const text = JSON.stringify(HEADER);
  const deep = (levels: number): string => "[".repeat(levels) + "]".repeat(levels);

  test.each<[string, Uint8Array, RegExp]>([
    ["less than a length", new Uint8Array(7), /^bytes: .* got 7 bytes: truncated$/],
    [
      "a length beyond the file",
      length(9999n),
      /^bytes: .* got one of 9999: truncated, or another/,
    ],
    ["a length beyond any file", length(2n ** 64n - 1n), /^bytes: .* header of at most \d+ bytes/],
    ["no object", file("[1]"), /^header: expected a JSON object, got other text$/],
    ["white space before it", file(` ${text}`), /^header: expected a JSON object, got other text$/],
    ["an end within a text", file('{"a":"}'), /^header: .* got one that does not end$/],
    ["an end within an object", file('{"a":{}'), /^header: .* got one that does not end$/],
    ["no JSON", file("{a}"), /^header: expected JSON, got text that is none$/],
    ["a name without a value", file('{"a"}'), /^header: expected JSON, got text that is none$/],
    ["a name twice", file(`${text.slice(0, -1)},${text.slice(1)}`), /^header: .* got "a\.running_/],
    ["no UTF-8", container(HEADER).fill(0xff, 10, 12), /^header: expected UTF-8/],
    ["values too deep", file(`{"a":${deep(3)}}`), /^header: expected entries of dtype, shape and/],
    [
      "a value too long",
      file(`{"a":"${"a".repeat(20000)}"}`),
      /^header: expected entries of dtype/,
    ],
    ["metadata too deep", file('{"__metadata__":{"a":[]}}'), /^header: expected entries of dtype/],
    ["metadata of numbers", file('{"__metadata__":{"a":1}}'), /^__metadata__: expected texts by/],
    [
      "metadata that is none",
      file('{"__metadata__":1}'),
      /^__metadata__: expected texts .* got 1$/,
    ],
    ["no type", entry({ dtype: 5 }), /^a\.running_mean: expected a dtype and a shape .* got 5 and/],
    ["a negative size", entry({ shape: [-2] }), /^a\.running_mean: expected a dtype and a shape/],
    [
      "half a place",
      entry({ data_offsets: [0] }),
      /^a\.running_mean: expected data_offsets of two/,
    ],
    ["no place", entry({ data_offsets: null }), /^a\.running_mean: expected data_offsets of two/],
    ["an end before the start", entry({ data_offsets: [8, 0] }), /within 16 bytes, got \[8, 0\]$/],
    ["an end behind the data", entry({ data_offsets: [8, 99] }), /within 16 bytes, got \[8, 99\]$/],
    [
      "other bytes than its shape",
      entry({ shape: [3] }),
      /^a\.running_mean: expected 12 bytes, as F32/,
    ],
    [
      "sizes beyond counting",
      entry({ shape: [2 ** 53 - 1, 2 ** 53 - 1] }),
      /expected [\d.e+]+ bytes/,
    ],
    [
      "bytes of two tensors",
      file({ [MEAN]: f32(0, 12), [VARIANCE]: f32(8, 16) }),
      /^a\.running_var: expected data_offsets that begin at 12, where other tensors end, got 8$/,
    ],
    [
      "bytes of none",
      file({ [MEAN]: f32(0, 8), [VARIANCE]: f32(12, 16) }),
      /^a\.running_var: expected data_offsets that begin at 8, where other tensors end, got 12$/,
    ],
    [
      "bytes left over",
      file(HEADER, new Uint8Array(20)),
      /^bytes: expected 16 bytes of tensors, as the header says, got 20$/,
    ],
  ])("%s", (_, bytes, message) => {
    assertRefuses(StateError, message, () => readTorch(bytes));
  });

  test.each<[string, object, RegExp]>([
    ["a matrix", { shape: [2, 1] }, /^a\.running_mean: expected F16, .* got F32 \[2, 1\]$/],
    ["integers", { dtype: "I32" }, /^a\.running_mean: expected F16, .* got I32 \[2\]$/],
    [
      "one channel beside two",
      { shape: [1], data_offsets: [0, 4] },
      /^a\.running_var: expected F16, .* \[1\], got F32 \[2\]$/,
    ],
    [
      "no channels",
      { shape: [0], data_offsets: [0, 0] },
      /^a\.running_mean: .* \[channels\], got F32 \[0\]$/,
    ],
  ])("%s, loading", (_, change, message) => {
    const mean = { ...f32(0, 8), ...change };
    const [, end] = (mean as { data_offsets: [number, number] }).data_offsets;
    const header = { [MEAN]: mean, [VARIANCE]: f32(end, end + 8) };
    assertRefuses(StateError, message, () => load(file(header, DATA.slice(0, end + 8))));
  });
});
