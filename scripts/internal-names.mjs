// Names of properties that only the engine uses. Bundlers of users shorten the names of variables but not those of
// properties, so the build does it for these (esbuild's mangleProps; Preact does the same,
// https://github.com/preactjs/preact/blob/main/mangle.json): in every file of dist/ and in the binaries there. The
// sources, build/*.wasm and the tests keep the long names. A name stands for every property that is called so,
// wherever it is. So tests/internal-names.test.ts fails if something besides the code of src/ may know one of them.

/** Properties of the engine's own objects. */
export const PROPERTIES = [
  "addressOf",
  "allocate",
  "array",
  "base",
  "bessel",
  "block",
  "cold",
  "columns",
  "commit",
  "correction",
  "differentiated",
  "forgetInput",
  "freeBytes",
  "full",
  "inferBy",
  "inner",
  "limits",
  "machine",
  "outer",
  "pad",
  "part",
  "parted",
  "pitch",
  "place",
  "planes",
  "release",
  "repeats",
  "residual",
  "rows",
  "scratch",
  "selection",
  "setState",
  "slots",
  "source",
  "stream",
  "streamed",
  "streams",
  "sumDyX",
  "terms",
  "tile",
  "transfer",
  "unit",
  "updateFor",
  "width",
];

/** Letters that name no property in src/. They may be keys of tables, for these never have a name of this list. */
const LETTERS = "cefghijklmnopqstuvwyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/** The short name of each of these properties and of each kernel; the same in all entries, which share objects. */
export const shortNames = (kernels) =>
  Object.fromEntries(
    [...kernels, ...PROPERTIES].map((name, i) => [
      name,
      LETTERS[i % LETTERS.length].repeat(1 + Math.floor(i / LETTERS.length)),
    ]),
  );
