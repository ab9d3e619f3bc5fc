// The package as built: what its entries import, export and carry, under every condition.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { posix } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import * as api from "batchnorm-wasm";
import * as small from "batchnorm-wasm/infer";
import { build, type Plugin } from "esbuild";
import fc from "fast-check";
import ts from "typescript";
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { ENTRIES, specifierOf } from "../scripts/entries.mjs";
import { LAYOUTS, layerOf, seeds, settle, shapes, sizeOf } from "./support/cases.js";
import { assertSameBits } from "./support/compare.js";
import { normal } from "./support/data.js";
import { check } from "./support/property.js";

const root = new URL("..", import.meta.url);
const at = (path: string): string => fileURLToPath(new URL(path, root));
const read = (path: string): string => readFileSync(at(path), "utf8");
const manifest = JSON.parse(read("package.json"));

const COMMAND = "dist/command.js";
const CONDITIONS = ["workerd", "edge-light", "default"] as const;
type Condition = (typeof CONDITIONS)[number];

const fileOf = (entry: string, condition: Condition): string =>
  `dist/${entry}${condition === "default" ? "" : `.${condition}`}.js`;

/** The specifiers that a module imports. */
function importsOf(path: string): string[] {
  const source = ts.createSourceFile(path, read(path), ts.ScriptTarget.Latest);
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    if (
      (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) &&
      node.moduleSpecifier !== undefined
    ) {
      found.push((node.moduleSpecifier as ts.StringLiteral).text);
    }
    if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      found.push(node.getText(source));
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

/** All files that an entry loads, itself included. */
function filesOf(path: string, seen = new Set<string>()): Set<string> {
  if (seen.has(path)) return seen;
  seen.add(path);
  for (const each of importsOf(path)) {
    if (each.startsWith("./") && each.endsWith(".js")) filesOf(`dist/${each.slice(2)}`, seen);
  }
  return seen;
}

test("programs on the site's pages can import every entry", () => {
  const modules = read("site/src/examples/worker.ts").matchAll(
    /"(batchnorm-wasm[^"]*)": \(\) => import\("([^"]+)"\)/g,
  );
  const expected = ENTRIES.map(specifierOf);
  const found = [...modules].map(([, name, module]) => [name, module]);
  expect(found.sort()).toEqual(expected.map((name) => [name, name]).sort());
});

describe("package.json", () => {
  // Two tools set the conditions of edge runtimes and do not import .wasm files as these do. Each of them sets another
  // condition as well, which leads past them: @edge-runtime/jest-environment `edge`, and Nitro 2 `wintercg`, with
  // `unwasm` beside it where it has been told to import .wasm files.
  test("every entry: its types first, then conditions, the one without last", () => {
    for (const entry of ENTRIES) {
      const key = entry === "index" ? "." : `./${entry}`;
      const plain = `./${fileOf(entry, "default")}`;
      const expected = {
        types: `./dist/${entry}.d.ts`,
        edge: plain,
        wintercg: { unwasm: `./${fileOf(entry, "edge-light")}`, default: plain },
        ...Object.fromEntries(
          CONDITIONS.map((condition) => [condition, `./${fileOf(entry, condition)}`]),
        ),
      };
      // As text, because the order counts.
      expect(JSON.stringify(manifest.exports[key])).toBe(JSON.stringify(expected));
    }
  });

  test("exports nothing else but binaries, a script and itself, and every file is there", () => {
    expect(Object.keys(manifest.exports).sort()).toEqual(
      [
        ...ENTRIES.map((entry) => (entry === "index" ? "." : `./${entry}`)),
        "./frozen.wasm",
        "./kernels.wasm",
        "./worker.js",
        "./package.json",
      ].sort(),
    );
    type Target = string | { [condition: string]: Target };
    const filesIn = (target: Target): string[] =>
      typeof target === "string" ? [target] : Object.values(target).flatMap(filesIn);
    for (const file of filesIn(manifest.exports)) expect(existsSync(at(file)), file).toBe(true);
  });

  test("leads tools that do not read exports to the same files", () => {
    expect([manifest.main, manifest.types]).toEqual(["./dist/index.js", "./dist/index.d.ts"]);
    for (const entry of ENTRIES.filter((each) => each !== "index")) {
      expect(manifest.files).toContain(entry);
      const { main, types, ...rest } = JSON.parse(read(`${entry}/package.json`));
      expect([main, types, rest]).toEqual([`../dist/${entry}.js`, `../dist/${entry}.d.ts`, {}]);
    }
  });

  test("needs nothing at run time but what a user of tfjs has", () => {
    expect(manifest.dependencies).toBeUndefined();
    expect(manifest.sideEffects).toBe(false);
  });
});

describe("dist", () => {
  test.each(ENTRIES)(
    "%s imports its neighbours, and nothing else unless it is for tfjs",
    (entry) => {
      for (const file of CONDITIONS.flatMap((condition) => [
        ...filesOf(fileOf(entry, condition)),
      ])) {
        for (const each of importsOf(file)) {
          if (entry.startsWith("tfjs") && each.startsWith("@tensorflow/")) continue;
          expect(each).toMatch(/^\.\//);
          expect(existsSync(at(`dist/${each.replace(/\?module$/, "")}`)), each).toBe(true);
        }
      }
    },
  );

  test("every file belongs to an entry, or is the command", () => {
    const files = ENTRIES.flatMap((entry) =>
      CONDITIONS.flatMap((condition) => [...filesOf(fileOf(entry, condition))]),
    );
    // A worker runs this file; no entry imports it.
    files.push("dist/worker.js");
    const built = readdirSync(at("dist")).filter((file) => file.endsWith(".js"));
    expect([...new Set([...files, COMMAND])].sort()).toEqual(
      built.map((file) => `dist/${file}`).sort(),
    );
  });

  test("the command imports entries, their errors and Node, and carries nothing of them", () => {
    expect(manifest.bin).toEqual({ "batchnorm-wasm": `./${COMMAND}` });
    expect(read(COMMAND)).toMatch(/^#!\/usr\/bin\/env node\n/);
    const imports = importsOf(COMMAND).filter((each) => !each.startsWith("node:"));
    expect([...new Set(imports)].sort()).toEqual([
      "./errors.js",
      "./hdf5.js",
      "./index.js",
      "./state.js",
    ]);
  });

  test.each(ENTRIES)("%s: binaries of its own, or imported as the condition has it", (entry) => {
    const wasm = (condition: Condition): string[] =>
      [...filesOf(fileOf(entry, condition))]
        .flatMap(importsOf)
        .filter((each) => each.includes(".wasm"));
    const binaries = (entry === "infer" ? ["infer"] : ["frozen", "kernels"]).map(
      (name) => `./${name}.wasm`,
    );
    expect(wasm("default")).toEqual([]);
    expect(wasm("workerd")).toEqual(binaries);
    expect(wasm("edge-light")).toEqual(binaries.map((file) => `${file}?module`));
  });

  test("source maps name only files that are in the package", () => {
    const packed = execFileSync("npm", ["pack", "--dry-run", "--ignore-scripts", "--json"], {
      cwd: at("."),
      encoding: "utf8",
    });
    const [{ files }]: [{ files: { path: string }[] }] = JSON.parse(packed);
    const paths = files.map(({ path }) => path);
    const maps = paths.filter((path) => path.endsWith(".map"));
    expect(maps.length).toBeGreaterThan(ENTRIES.length);
    for (const map of maps) {
      const { sources }: { sources: string[] } = JSON.parse(read(map));
      for (const source of sources) expect(paths, map).toContain(posix.join("dist", source));
    }
  });

  test("the entries share their errors", async () => {
    for (const condition of CONDITIONS) {
      for (const entry of ENTRIES) {
        expect([...filesOf(fileOf(entry, condition))]).toContain("dist/errors.js");
      }
    }
  });
});

/** What an entry exports. */
type Entry = Record<string, unknown>;

const imported = (path: string): Promise<Entry> =>
  import(/* @vite-ignore */ pathToFileURL(at(path)).href);

/** A .wasm file as the runtimes of the conditions import it. */
const compiled: Plugin = {
  name: "compiled",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /\.wasm(\?module)?$/ }, ({ path }) => ({ path, namespace: "compiled" }));
    onLoad({ filter: /.*/, namespace: "compiled" }, ({ path }) => {
      const bytes = readFileSync(at(`dist/${path.replace(/\?module$/, "")}`)).toJSON().data;
      return { contents: `export default new WebAssembly.Module(Uint8Array.of(${bytes}));` };
    });
  },
};

/** An entry bundled for a condition by its name, as a user's bundler does, then imported. */
async function bundled(
  entry: "index" | "infer",
  condition: Condition,
  plugin: Plugin,
): Promise<Entry> {
  mkdirSync(at("build/entries"), { recursive: true });
  const outfile = at(`build/entries/${entry}.${condition}.${plugin.name}.mjs`);
  // A package may import itself by its name.
  await build({
    stdin: { contents: `export * from "${specifierOf(entry)}";`, resolveDir: at("dist") },
    conditions: condition === "default" ? [] : [condition],
    bundle: true,
    format: "esm",
    plugins: [plugin],
    outfile,
    logLevel: "silent",
    tsconfigRaw: {},
  });
  return import(/* @vite-ignore */ pathToFileURL(outfile).href);
}

describe.each(CONDITIONS)("under the condition %s", (condition) => {
  let main: typeof api;
  let infer: typeof small;
  beforeAll(async () => {
    main = (await bundled("index", condition, compiled)) as typeof api;
    infer = (await bundled("infer", condition, compiled)) as typeof small;
  });

  test("the names of the source", () => {
    expect(Object.keys(main).sort()).toEqual(Object.keys(api).sort());
    expect(Object.keys(infer).sort()).toEqual(Object.keys(small).sort());
  });

  test("classes and functions have their names", () => {
    for (const [name, value] of [...Object.entries(main), ...Object.entries(infer)]) {
      expect((value as { name: string }).name).toBe(name);
    }
  });

  test("the same bits: training, gradients, test time", () => {
    const x = normal(40 * 300, 1, 3, 2);
    const dy = normal(40 * 300, 2);
    const [expected, actual] = [new api.BatchNorm(300), new main.BatchNorm(300)];
    assertSameBits("y", actual.train(x), expected.train(x));
    assertSameBits("dx", actual.backward(dy).dx, expected.backward(dy).dx);
    const z = expected.infer(x);
    assertSameBits("infer", actual.infer(x), z);
    assertSameBits("frozen", actual.freeze().infer(x), z);
    const text = JSON.stringify(expected.freeze());
    assertSameBits("from JSON", main.FrozenBatchNorm.fromJSON(text).infer(x), z);
    assertSameBits("small", infer.FrozenBatchNorm.fromJSON(text).infer(x), z);
  });
});

describe("a bundler that gives a .wasm file as something else", () => {
  const asUrl: Plugin = {
    name: "url",
    setup({ onResolve, onLoad }) {
      onResolve({ filter: /\.wasm(\?module)?$/ }, ({ path }) => ({ path, namespace: "url" }));
      onLoad({ filter: /.*/, namespace: "url" }, () => ({
        contents: 'export default "/assets/some.wasm";',
      }));
    },
  };

  /** Gives this binary alone as a module. */
  const onlyCompiled = (binary: "frozen" | "kernels"): Plugin => ({
    name: `${binary}-alone`,
    setup(build) {
      build.onResolve({ filter: new RegExp(`/${binary}\\.wasm`) }, ({ path }) => ({
        path,
        namespace: "compiled",
      }));
      asUrl.setup(build);
      compiled.setup(build);
    },
  });

  test.each(
    (["workerd", "edge-light"] as const).flatMap((condition) =>
      [asUrl, onlyCompiled("frozen"), onlyCompiled("kernels")].map(
        (plugin) => [condition, plugin.name, plugin] as const,
      ),
    ),
  )("%s, %s: an error that says so", async (condition, _, plugin) => {
    const main = (await bundled("index", condition, plugin)) as typeof api;
    const layer = new main.BatchNorm(3);
    const use = () => layer.train(normal(12, 1));
    expect(use).toThrow(main.UnsupportedError);
    expect(use).toThrow(/expected the bundler to .*WebAssembly\.Module, got "\/assets\/some.wasm"/);
    expect(layer.lastBatch).toBeNull();
  });
});

describe("infer", () => {
  test("the bits of the main entry, for any layout and shape", () => {
    check(
      fc.property(shapes(1), seeds, (shaped, seed) => {
        const layer = settle(layerOf(shaped, {}, seed), seed);
        const x = normal(sizeOf(shaped), seed);
        const { shape } = shaped;
        const text = JSON.stringify(layer.freeze());
        const frozen = small.FrozenBatchNorm.fromJSON(text);
        const y = layer.infer(x, { shape });
        assertSameBits("y", frozen.infer(x, { shape }), y);
        expect(frozen.infer(x, { shape, out: x })).toBe(x);
        assertSameBits("in place", x, y);
        expect(JSON.stringify(frozen)).toBe(text);
      }),
      200,
    );
  });

  test.each([
    ["NC", [700, 300]],
    ["NC", [3, 5000]],
    ["NCHW", [3, 7, 150, 151]],
    ["NCL", [40, 3000, 3]],
    ["NHWC", [2, 90, 90, 17]],
  ] as const)("ordinary arrays beyond its buffers: %s %j", (layout, shape) => {
    const channels = shape[layout.indexOf("C")]!;
    const x = normal(
      shape.reduce<number>((a, b) => a * b, 1),
      1,
      5,
    );
    const layer = settle(new api.BatchNorm(channels, { layout }), 3);
    const frozen = small.FrozenBatchNorm.fromJSON(layer.freeze().toJSON());
    assertSameBits("y", frozen.infer(x, { shape }), layer.infer(x, { shape }));
  });

  test("has the layout and the channels", () => {
    for (const layout of LAYOUTS) {
      const frozen = small.FrozenBatchNorm.fromJSON(
        new api.BatchNorm(5, { layout }).freeze().toJSON(),
      );
      expect([frozen.channels, frozen.layout]).toEqual([5, layout]);
    }
  });

  describe("where it cannot start", () => {
    afterEach(() => {
      vi.unstubAllGlobals();
      vi.resetModules();
    });

    /** A WebAssembly that refuses to compile what is, or is not, valid there. */
    const { CompileError } = WebAssembly;
    const refusing = (valid: boolean, reason: string): object => ({
      validate: () => valid,
      Module: class {
        constructor() {
          throw new CompileError(reason);
        }
      },
    });

    test.each([
      [
        "a Content-Security-Policy",
        refusing(true, "violates the policy"),
        /^WebAssembly: .*Content-Security-Policy: add 'wasm-unsafe-eval' to script-src.*got CompileError: violates the policy$/,
      ],
      [
        "no SIMD",
        refusing(false, "Wasm SIMD unsupported"),
        /^WebAssembly: expected a runtime with SIMD \(update to .*got CompileError: Wasm SIMD unsupported$/,
      ],
      [
        "no WebAssembly",
        undefined,
        /^WebAssembly: expected a runtime that has it \(no --jitless, no Lockdown Mode\), got \w+Error: /,
      ],
    ])("%s: what to do; few values need no kernels", async (_name, replacement, message) => {
      const layer = settle(new api.BatchNorm(3), 1);
      const text = JSON.stringify(layer.freeze());
      const x = normal(3000, 1);
      const expected = layer.infer(x);
      vi.resetModules();
      vi.stubGlobal("WebAssembly", replacement);
      const fresh = await import("batchnorm-wasm/infer");
      const frozen = fresh.FrozenBatchNorm.fromJSON(text);
      const out = new Float32Array(3000);
      const use = () => frozen.infer(x, { out });
      expect(use).toThrow(fresh.UnsupportedError);
      expect(use).toThrow(message);
      expect(out.every((value) => value === 0)).toBe(true);
      assertSameBits("y", frozen.infer(x.subarray(0, 3)), expected.subarray(0, 3));
      vi.unstubAllGlobals();
      assertSameBits("y", use(), expected);
    });
  });

  describe("in Cloudflare's workerd, without the condition", () => {
    beforeEach(() => {
      vi.resetModules();
    });
    afterEach(() => {
      vi.unstubAllGlobals();
      vi.resetModules();
    });

    /** A WebAssembly that compiles until it is told that the Worker has started. */
    function starting(): { started: boolean; compiled: number } {
      const state = { started: false, compiled: 0 };
      const { Module, Memory, Instance, CompileError } = WebAssembly;
      class Counted extends Module {
        constructor(bytes: BufferSource) {
          if (state.started) throw new CompileError("disallowed by embedder");
          super(bytes);
          state.compiled++;
        }
      }
      const validate = () => true;
      vi.stubGlobal("WebAssembly", { Module: Counted, Memory, Instance, CompileError, validate });
      return state;
    }

    const layer = settle(new api.BatchNorm(3), 1);
    const text = JSON.stringify(layer.freeze());
    const x = normal(3000, 1);

    test("compiles at import, because later it may not", async () => {
      vi.stubGlobal("navigator", { userAgent: "Cloudflare-Workers" });
      const state = starting();
      const { FrozenBatchNorm } = await import("batchnorm-wasm/infer");
      // Both binaries of src/, of which the bundle dist/infer.js has one.
      expect(state.compiled).toBe(2);
      state.started = true;
      assertSameBits("y", FrozenBatchNorm.fromJSON(text).infer(x), layer.infer(x));
    });

    test("where it may not at import either, the first use says what to do", async () => {
      vi.stubGlobal("navigator", { userAgent: "Cloudflare-Workers" });
      starting().started = true;
      const { FrozenBatchNorm, UnsupportedError } = await import("batchnorm-wasm/infer");
      const use = () => FrozenBatchNorm.fromJSON(text).infer(x);
      expect(use).toThrow(UnsupportedError);
      expect(use).toThrow(/import it while the Worker starts.*disallowed by embedder/);
    });

    test.each([
      ["another runtime", { userAgent: "Node.js/26" }],
      ["a runtime without a navigator", undefined],
    ])("%s compiles at first use", async (_name, navigator) => {
      vi.stubGlobal("navigator", navigator);
      const state = starting();
      const { FrozenBatchNorm } = await import("batchnorm-wasm/infer");
      expect(state.compiled).toBe(0);
      FrozenBatchNorm.fromJSON(text).infer(x);
      expect(state.compiled).toBe(1);
    });
  });

  test("errors of the classes of the main entry, with its messages", async () => {
    const main = (await imported("dist/index.js")) as typeof api;
    const infer = (await imported("dist/infer.js")) as typeof small;
    const text = JSON.stringify(new main.BatchNorm(3).freeze());
    type Both = Pick<typeof api | typeof small, "FrozenBatchNorm">;
    const calls: ((entry: Both) => unknown)[] = [
      (entry) => entry.FrozenBatchNorm.fromJSON("{"),
      (entry) => entry.FrozenBatchNorm.fromJSON(text.replace("frozen", "layer")),
      (entry) => entry.FrozenBatchNorm.fromJSON(text.replace('"channels":3', '"channels":4')),
      (entry) => entry.FrozenBatchNorm.fromJSON(text).infer(new Float32Array(4)),
      (entry) => entry.FrozenBatchNorm.fromJSON(text).infer([1, 2, 3] as never),
      (entry) => entry.FrozenBatchNorm.fromJSON(text).infer(normal(3, 1), { to: 1 } as never),
    ];
    for (const call of calls) {
      const of = (entry: Both): Error => {
        try {
          call(entry);
        } catch (error) {
          return error as Error;
        }
        throw new Error("Nothing was thrown");
      };
      const [expected, actual] = [of(main), of(infer)];
      expect(expected).toBeInstanceOf(infer.BatchNormError);
      expect(actual.constructor).toBe(expected.constructor);
      expect(actual.message).toBe(expected.message);
    }
  });
});

describe("a page that only uses FrozenBatchNorm", () => {
  /** The beginning of a binary as text: no other string is as long. */
  const BINARY = /"(?:[^"\\\n]|\\.){1000}/g;

  test("carries nothing of training", async () => {
    const { outputFiles } = await build({
      stdin: {
        contents: 'export { FrozenBatchNorm } from "batchnorm-wasm";',
        resolveDir: at("dist"),
      },
      bundle: true,
      format: "esm",
      write: false,
      tsconfigRaw: {},
    });
    const { text } = outputFiles[0]!;
    const all = [...filesOf("dist/index.js")].map(read).join();
    expect(text).toContain("function applyTerms(");
    expect(text.match(BINARY)).toHaveLength(1);
    expect(all.match(BINARY)).toHaveLength(2);
    for (const name of [
      "var BatchNorm = ",
      "var Moments = ",
      "function allMoments(",
      "function computeGradients(",
    ]) {
      expect(text).not.toContain(name);
      expect(all, name).toContain(name);
    }
  });
});

describe("threads, as built", () => {
  // The build shortens names, and must leave alone those by which Node is asked.
  test("are as many as Node says the machine has, at most eight", async () => {
    const { startKernels } = await import(pathToFileURL(at("dist/threads.js")).href);
    const kernels = await startKernels();
    expect(kernels.threads).toBe(Math.min(8, availableParallelism()));
    kernels.close();
  });
});

describe("types", () => {
  test.each(["index", "infer", "state", "hdf5", "threads"])(
    "%s: complete without DOM, Node, leniency",
    (entry) => {
      const program = ts.createProgram([at(`dist/${entry}.d.ts`)], {
        strict: true,
        lib: ["lib.es2022.d.ts"],
        types: [],
        module: ts.ModuleKind.ESNext,
        moduleResolution: ts.ModuleResolutionKind.Bundler,
        target: ts.ScriptTarget.ES2022,
      });
      const problems = ts.getPreEmitDiagnostics(program);
      expect(
        problems.map((each) => ts.flattenDiagnosticMessageText(each.messageText, "\n")),
      ).toEqual([]);
    },
  );
});
