// Names of properties that only the engine uses. Bundlers of users shorten variables but not properties, so the
// build does it for these, as Preact does (https://github.com/preactjs/preact/blob/main/mangle.json): in every file
// of dist/ and in the binaries there. The sources, build/*.wasm and the tests of kernels keep the long names.
// tests/internal-names.test.ts holds that nothing else goes by a name of this list.

/** Properties of the engine's own objects. */
export const PROPERTIES = [
  "addressOf",
  "allocate",
  "array",
  "base",
  "block",
  "cold",
  "columns",
  "correction",
  "inner",
  "machine",
  "outer",
  "part",
  "pitch",
  "place",
  "planes",
  "release",
  "repeats",
  "rows",
  "scratch",
  "selection",
  "slots",
  "stream",
  "streamed",
  "streams",
  "terms",
  "tile",
  "transfer",
  "unit",
  "width",
];

/** Letters that are no properties in src/, but for tables in src/state/, and no strings there that might be keys. */
const LETTERS = "cdefghijklmnopqrstuvwzADEFGHJKMPQRSTUVWXYZ";

/** The short name of each of these properties and of each kernel; the same in all entries, which share objects. */
export const shortNames = (kernels) =>
  Object.fromEntries(
    [...kernels, ...PROPERTIES].map((name, i) => [
      name,
      LETTERS[i % LETTERS.length].repeat(1 + Math.floor(i / LETTERS.length)),
    ]),
  );
