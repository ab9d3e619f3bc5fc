// Names of properties that only the package's own code uses. Bundlers of users shorten the names of variables but not those of
// properties, so the build does it for these (esbuild's mangleProps; Preact does the same,
// https://github.com/preactjs/preact/blob/main/mangle.json): in every file of dist/ and in the binaries there. The
// sources, build/*.wasm and the tests keep the long names. A name stands for every property that is called so,
// wherever it is. So tests/internal-names.test.ts fails if something besides the code of src/ may know one of them.

/** Properties of the engine's own objects and of a layer's parts. Those named most often come first, as letters do. */
const ENGINE = [
  "inner",
  "array",
  "selection",
  "rows",
  "limits",
  "bits",
  "terms",
  "width",
  "correction",
  "bessel",
  "slots",
  "tile",
  "source",
  "outer",
  "residual",
  "full",
  "unit",
  "planes",
  "repeats",
  "part",
  "base",
  "block",
  "sumDyX",
  "pitch",
  "place",
  "addressOf",
  "columns",
  "pad",
  "stream",
  "transfer",
  "streamed",
  "streams",
  "cold",
  "scratch",
  "settings",
  "parameters",
  "averages",
  "differentiated",
  "updateFor",
  "allocate",
  "commit",
  "freeBytes",
  "release",
  "latest",
  "hold",
];

/** Properties of other objects, most of them records of those who read and write files. */
const OTHERS = [
  "addMarks",
  "addTensor",
  "agreed",
  "arrays",
  "behind",
  "byEnd",
  "buffers",
  "calls",
  "changes",
  "check",
  "checkLetters",
  "choose",
  "collector",
  "constant",
  "container",
  "copy",
  "counts",
  "declared",
  "depth",
  "dimensions",
  "drop",
  "dropped",
  "each",
  "entry",
  "field",
  "fields",
  "file",
  "finish",
  "first",
  "flags",
  "flips",
  "fold",
  "gap",
  "hasOptions",
  "head",
  "high",
  "irVersion",
  "isFloat",
  "item",
  "last",
  "leaf",
  "learn",
  "leave",
  "leaveOut",
  "level",
  "makerOf",
  "makers",
  "marks",
  "messages",
  "metadata",
  "method",
  "modules",
  "most",
  "near",
  "network",
  "normalizes",
  "norms",
  "operation",
  "operations",
  "outs",
  "owners",
  "packed",
  "persistent",
  "prefix",
  "rank",
  "rankOf",
  "ranks",
  "remove",
  "replaced",
  "root",
  "setTensor",
  "shapeAt",
  "shards",
  "sizes",
  "spend",
  "start",
  "stepOf",
  "storages",
  "takeOver",
  "takerOf",
  "taps",
  "tensorOf",
  "tensors",
  "trains",
  "typeAt",
  "unlisted",
  "used",
  "user",
  "usesOf",
  "varint",
  "whole",
  "wire",
  "with",
  "within",
  "wrapper",
  "wrappers",
];

/**
 * Members of the classes that users see, for the package's own use. A user may extend such a class, or give an object of it
 * properties. So the short names of these begin with `$`: a member of the user's named `R` would be called in their place.
 */
export const HIDDEN = [
  "itself",
  "machine",
  "setState",
  "inferBy",
  "momentsInto",
  "collectInto",
  "inside",
  "compute",
  "synchronize",
  "forgetInput",
];

export const PROPERTIES = [...ENGINE, ...OTHERS, ...HIDDEN];

/** Letters that name no property in src/. They may be keys of tables, for these never have a name of this list. */
const LETTERS = "cefghijklmnopqstuvwyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/** Pairs of letters that are frequent in code and so cost little when they are compressed. */
const PAIRS = [..."eirnstoalcdmpuf"].flatMap((first) =>
  [..."tnsreoaicldmpu"].map((second) => first + second),
);
/** Those that are words of JavaScript, or names of properties. */
const TAKEN = ["as", "at", "do", "if", "in", "is", "no", "of", "on", "or", "to"];

const NAMES = [...LETTERS, ...PAIRS.filter((pair) => !TAKEN.includes(pair))];

/**
 * The short name of each of these properties and of each kernel; the same in all entries, which share objects. What is
 * named most often, the engine's properties, has single letters.
 */
export const shortNames = (kernels) =>
  Object.fromEntries([
    ...[...ENGINE, ...kernels, ...OTHERS].map((name, i) => [name, NAMES[i]]),
    ...HIDDEN.map((name, i) => [name, `$${NAMES[i]}`]),
  ]);
