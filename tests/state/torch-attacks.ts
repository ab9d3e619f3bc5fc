// Files that are made to take all memory or time, by what they do. The test writes them, and a process
// with a small heap reads them: torch-attacks.test.ts, torch-attacked.ts.

import {
  archive,
  call,
  dict,
  float,
  list,
  module,
  NONE,
  ORDERED,
  pickle,
  row,
  tensor,
  text,
  tuple,
  whole,
} from "./torch-files.js";
import { zip } from "./zip-files.js";

const MANY = 2_000_000;
/** So many times what a function gives for 0, 1, … */
const times = (count: number, code: (i: number) => string): string =>
  Array.from({ length: count }, (_, i) => code(i)).join("");

/** A state_dict of so many layers, each of whose tensors is this one. */
function layers(count: number, of: string, made = ORDERED): string {
  const names = ["weight", "bias", "running_mean", "running_var"];
  const entries = times(count, (i) => times(4, (n) => `${text(`${i}.${names[n]}`)}h\x00`));
  return `${of}q\x000${made}(${entries}u`;
}

/** Modules of two children, both of them the next one. */
function doubled(depth: number): string {
  const leaf = module("torch.nn.BatchNorm1d", {
    buffers: { running_mean: tensor(), running_var: tensor() },
  });
  let code = `${leaf}q\x000`;
  for (let i = 0; i < depth; i++) {
    const child = `j${whole(i).slice(1)}`;
    const node = module("a.Block", { modules: { a: child, b: child } });
    code += `${node}r${whole(i + 1).slice(1)}0`;
  }
  return `${code}j${whole(depth).slice(1)}`;
}

/** Modules or dicts, each in the one before. */
const nested = (depth: number, begin: string, end: string): string =>
  begin.repeat(depth) + NONE + end.repeat(depth);

const TOO_MANY =
  /^bytes: expected a pickle of tensors and little else, got one that needs too much memory; /;
const SHARED = /^bytes: expected tensors of about as many bytes as the file, .* share or repeat/;
const LOADED = /^loaded$/;

/** What the error says, or that there is none, and the file. */
export const ATTACKS: Readonly<Record<string, readonly [RegExp, () => Uint8Array]>> = {
  "empty dicts": [TOO_MANY, () => archive("}".repeat(MANY))],
  "empty lists": [TOO_MANY, () => archive("]0".repeat(MANY))],
  "empty tuples": [TOO_MANY, () => archive(")".repeat(MANY))],
  "a tuple of too many values": [
    /got a damaged one at 1048580$/,
    () => archive(`(${"N".repeat(MANY)}t`),
  ],
  marks: [/got a damaged one at 1048579$/, () => archive("(".repeat(MANY))],
  "values kept": [TOO_MANY, () => archive(`N${"\x94".repeat(MANY)}`)],
  "dicts with an entry": [TOO_MANY, () => archive("}NNs0".repeat(MANY))],
  "entries of a dict": [TOO_MANY, () => archive(`}${times(MANY, (i) => `${whole(i)}Ns`)}`)],
  classes: [TOO_MANY, () => archive(times(MANY / 4, (i) => `c${i}\n\n0`))],
  "floats in lists": [TOO_MANY, () => archive(`](${float(1).repeat(1_000_000)}e`.repeat(3))],
  "one value in a list, again and again": [
    TOO_MANY,
    () => archive(`]q\x00${`(${"h\x00".repeat(1_000_000)}e`.repeat(5)}`),
  ],
  "tuples within tuples": [TOO_MANY, () => archive(`)${"\x85".repeat(MANY)}`)],
  "long texts": [LOADED, () => archive(`${text("a".repeat(20_000_000))}${"2".repeat(1000)}`)],
  "calls within calls": [LOADED, () => archive(`${nested(100_000, "cbuiltins\ndict\n", "\x85R")}`)],
  "types within types": [
    LOADED,
    () => {
      const path = "ctorch._tensor\n_rebuild_from_type_v2\n";
      return archive(`${path}${nested(20_000, `(${path}${path}`, "Nt")}R`);
    },
  ],
  "dicts within dicts": [TOO_MANY, () => archive(nested(100_000, `}${text("a")}`, "s"))],
  "modules within modules": [
    /at most 100000 modules on 64 levels/,
    () => {
      const begin = `ca\nB\n)\x81}(${text("_buffers")}}${text("_modules")}}${text("m")}`;
      return archive(nested(20_000, begin, "sub"));
    },
  ],
  "modules, each twice in the next": [LOADED, () => archive(doubled(50))],
  "lists, each twice in the next": [
    LOADED,
    () =>
      archive(
        `]q\x00${times(200, (i) => `0](h${String.fromCharCode(i)}h${String.fromCharCode(i)}eq${String.fromCharCode(i + 1)}`)}`,
      ),
  ],
  "many models of the same modules": [
    /^key: expected one of "0", .* \(2000 in all\)/,
    () => {
      const shared = `${module("a.B", { modules: { b: doubled(20) } })}r\x99\x99\x00\x000`;
      const one = module("a.C", { modules: { b: "j\x99\x99\x00\x00" } });
      return archive(shared + list(times(2000, () => one)));
    },
  ],
  "a tensor of 2^60 values in one": [
    SHARED,
    () => archive(layers(1, tensor({ shape: [2 ** 52], strides: [0] }))),
  ],
  "sizes whose product is none": [
    SHARED,
    () =>
      archive(layers(1, tensor({ shape: Array(60).fill(2 ** 52), strides: Array(60).fill(0) }))),
  ],
  "a thousand tensors of 2^18 values in one": [
    SHARED,
    () => archive(layers(1000, tensor({ shape: [2 ** 18], strides: [0] }))),
  ],
  "two thousand layers of the same million values": [
    SHARED,
    () => archive(layers(2000, tensor({ length: 1_000_000 })), { 0: new Uint8Array(4_000_000) }),
  ],
  "a storage of 2^52 values": [
    /within storage 0 of 4503599627370496 values, which has 12 bytes/,
    () => archive(layers(1, tensor({ length: 2 ** 52, shape: [3] }))),
  ],
  "a storage of 2^52 values, before 1.6": [
    /expected a storage of 4503599627370496 values of type F32 at \d+, got other bytes: truncated/,
    () => row(layers(1, tensor({ length: 2 ** 52, shape: [3] }))),
  ],
  "an offset of 2^52": [
    /within storage 0 of 3 values, .* from value 4503599627370496 on$/,
    () => archive(layers(1, tensor({ offset: 2 ** 52 }))),
  ],
  "a negative stride": [
    /expected a tensor that has a storage, an offset, sizes and strides, got another$/,
    () => archive(layers(1, tensor({ strides: [-1], offset: 2 }))),
  ],
  "a negative size": [
    /expected a tensor that has a storage, an offset, sizes and strides, got another$/,
    () => archive(layers(1, tensor({ shape: [-3] }))),
  ],
  "a stride of 2^52": [
    /within storage 0 of 3 values, .* strides \[4503599627370496\]/,
    () => archive(layers(1, tensor({ strides: [2 ** 52] }))),
  ],
  "more axes than there are": [
    /expected a tensor that has a storage, an offset, sizes and strides, got another$/,
    () => archive(layers(1, tensor({ shape: Array(1000).fill(1), strides: Array(1000).fill(1) }))),
  ],
  "keys of tuples within themselves": [
    LOADED,
    () =>
      archive(`}(]q\x00h\x00a${tuple("h\x00")}N${tensor()}${dict({})}${dict({ a: tensor() })}u`),
  ],
  "names of a million dots": [
    LOADED,
    () =>
      archive(
        `${ORDERED}(${times(10, (i) => text(`${".".repeat(100_000)}${i}.running_mean`) + tensor() + text(`${".".repeat(100_000)}${i}.running_var`) + tensor())}u`,
      ),
  ],
  "wrappers within wrappers": [
    LOADED,
    () =>
      archive(
        dict({
          [`${"module.".repeat(100_000)}running_mean`]: tensor(),
          [`${"module.".repeat(100_000)}running_var`]: tensor(),
        }),
      ),
  ],
  "a pickle that is all of the archive, stored as each storage": [
    /got one whose entry "a\/data\/0" is not \d+ bytes of its own/,
    () => {
      const data = pickle(layers(1, tensor({ key: "data.pkl" })));
      return zip([
        { name: "a/data.pkl", data },
        { name: "a/data/0", data, at: 0 },
      ]);
    },
  ],
  "keys of storages in themselves, before 1.6": [
    /expected a storage of 0 values of type unknown at \d+, got other bytes/,
    () => row(layers(1, tensor()), { 0: [1, 2, 3] }, { keys: "]q\x00h\x00a" }),
  ],
  "a call with itself": [
    /expected a tensor that has a storage, an offset, sizes and strides, got another$/,
    () =>
      archive(
        `]q\x00${call("torch._utils._rebuild_tensor_v2", "h\x00", "h\x00", "h\x00", "h\x00")}`,
      ),
  ],
};
