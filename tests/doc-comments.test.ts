// What the doc comments of the public surface owe their readers: the errors that can come, the shapes
// of arrays, and examples that run. That every exported name has a comment, TypeDoc sees to
// (`npm run docs`).

import { fileURLToPath } from "node:url";
import * as main from "batchnorm-wasm";
import * as hdf5 from "batchnorm-wasm/hdf5";
import * as state from "batchnorm-wasm/state";
import ts from "typescript";
import { describe, expect, it } from "vitest";
import {
  arrays,
  type Callable,
  callables,
  type Example,
  examples,
  guardedClasses,
} from "./support/api.js";
import { compile, type Program, run, write } from "./support/examples.js";

const all = callables();

const textOf = (comment: ts.JSDocTag["comment"]): string =>
  ts.getTextOfJSDocComment(comment)?.replace(/\s+/g, " ") ?? "";

const throwsTag = ({ declaration }: Callable): string =>
  ts
    .getJSDocTags(declaration)
    .filter(({ tagName }) => tagName.text === "throws")
    .map(({ comment }) => textOf(comment))
    .join(" ");

/** The classes that a comment names, or those of others that it refers to: "as `bn.infer`". */
function documented(callable: Callable): Set<string> {
  const text = throwsTag(callable);
  const named = new Set(text.match(/\b[A-Z]\w*Error\b/g));
  for (const [, clause] of text.matchAll(/\bas (`.*?`)(?=[;,]|\.\s|\.?$)/g)) {
    for (const [, reference] of clause!.matchAll(/`([\w. ]+)`/g)) {
      const whole = reference!.replace(/^bn\./, "BatchNorm.");
      const found = all.find(
        ({ name }) => name === whole || name === `${classOf(callable)}.${whole}`,
      );
      expect(found, `${callable.name}: as ${reference}`).toBeDefined();
      for (const each of documented(found!)) named.add(each);
    }
  }
  return named;
}
const classOf = ({ name }: Callable): string => name.replace(/\..*/, "");

/** The first use of kernels may throw these, wherever it is: `train` and `new Kernels` say so. */
const FIRST_USE = ["MemoryError", "UnsupportedError"];

/** Throws that the code can reach for the compiler, but not for a user. */
const NEVER: Readonly<Record<string, readonly string[]>> = {
  calibrate: ["ShapeError"], // of moments, which are those of its own layers
  "new BatchNorm": ["StateError"], // of arrays that were transferred; these are new
  "BatchNorm.torch": ["StateError"], // the same
  "BatchNorm.keras": ["StateError"], // the same
  "BatchNorm.onnx": ["StateError"], // the same
  "BatchNorm.flax": ["StateError"], // the same
  "Normalization.build": ["StateError"], // the same
  "BatchNorm.clone": ["OptionError"], // its options were checked
  batchNorm: ["SingleValueError", "NonFiniteError"], // of training
  "BatchNorm.restore": ["OptionError"], // becomes a StateError
  "FrozenBatchNorm.fromJSON": ["OptionError"], // becomes a StateError
  "Moments.fromJSON": ["ShapeError"], // numbers of other lengths are a StateError before
  "GradientSums.fromJSON": ["ShapeError"], // the same
  "Adapter.fromJSON": ["ShapeError"], // the same
  "BatchNorm.kernels": ["OptionError"], // the shared kernels have the default memory
  startKernels: ["StateError"], // of calls in which a worker fails
  readTorch: ["OptionError"], // of `load`, which says so
  readKeras: ["OptionError"], // the same
};

describe("@throws", () => {
  it.each(all)("of $name in $entry names every error that its code can throw", (callable) => {
    const known = documented(callable);
    const missing = [...callable.throws].filter(
      (error) =>
        !known.has(error) && !FIRST_USE.includes(error) && !NEVER[callable.name]?.includes(error),
    );
    expect(missing).toEqual([]);
  });

  it("is needed for every exception from that", () => {
    for (const [name, errors] of Object.entries(NEVER)) {
      const reached = new Set(
        all.filter((each) => each.name === name).flatMap(({ throws }) => [...throws]),
      );
      for (const error of errors) expect([...reached], name).toContain(error);
    }
  });
});

describe("what every member throws through a proxy", () => {
  const guarded = guardedClasses();

  it("is said of the classes that have private members", () => {
    const names = guarded.map(([name]) => name).sort();
    expect(names).toEqual([
      "Adapter",
      "BatchNorm",
      "FrozenBatchNorm",
      "FrozenBatchNorm",
      "Kernels",
      "TfBatchNorm",
    ]);
  });

  it.each(guarded)("%s", (_name, comment) => {
    expect(comment).toMatch(/@throws StateError .* through a proxy/);
  });
});

describe("shapes", () => {
  const shape =
    /\[[\w, …·-]+\]|in the shape of|of x's length|one per channel|one entry per|in `shape`|in its shape|layout/i;

  it.each(arrays())("$name has one", ({ comment }) => {
    expect(comment).toMatch(shape);
  });

  const given = all.flatMap((callable) =>
    callable.declaration.parameters
      .filter((parameter) => /Float(32|64)Array|TensorLike/.test(parameter.type?.getText() ?? ""))
      .map((parameter) => ({ name: `${callable.name}: ${parameter.name.getText()}`, parameter })),
  );

  it.each(given)("$name has one", ({ parameter }) => {
    const comment = ts.getJSDocParameterTags(parameter).map((tag) => textOf(tag.comment));
    expect(comment.join(" ")).toMatch(shape);
  });
});

/** What examples take for granted. */
const BEFORE = `
const bn = new BatchNorm(64);
const [bn1, bn2] = [new BatchNorm(64), new BatchNorm(64)];
const x = Float32Array.from({ length: 256 * 64 }, (_, i) => Math.sin(i));
const dy = x.map((v) => v / 256);
const [a, b] = [x.slice(0, 128 * 64), x.slice(128 * 64)];
const one = x.slice(0, 64);
const conv = new Float32Array(64 * 3 * 7 * 7).fill(0.1);
const batches = [a, b];
const network = (input: Float32Array, _: { training: boolean }) => bn2.train(bn1.train(input));
bn.train(x);
const text = JSON.stringify(bn.freeze());
`;
const TENSORS = `
const [w, v] = [tf.variable(tf.randomNormal([784, 100])), tf.variable(tf.randomNormal([100, 10]))];
const labels = tf.oneHot(tf.zeros([60], "int32"), 10);
const x = tf.randomNormal<tf.Rank.R2>([60, 784]);
const [mean, offset] = [tf.zeros([784]), tf.zeros([784])];
const [variance, scale] = [tf.ones([784]), tf.ones([784])];
`;
/** Files to fetch, and to write into. */
const files = (made: string): string => `
const original = ${made};
const fetch = async (name: string): Promise<Response> =>
  new Response(FILE(name) as BodyInit);
`;
const ONNX =
  BEFORE +
  files(`writeOnnx({ "/bn1/BatchNormalization": bn1 })`).replace("FILE(name)", "name && original");
const KERAS =
  BEFORE +
  files(`writeKeras({ batch_normalization: bn })`).replace(
    "FILE(name)",
    'name === "model.json" ? original.model : original.weights[name]!',
  );
const TORCH = BEFORE + files(`writeTorch({ bn1, bn2 })`).replace("FILE(name)", "name && original");
const KERAS_FILE = fileURLToPath(
  new URL("golden/state/keras-files/tf-2.12.keras", import.meta.url),
);
const HDF5 = `
const { readFileSync } = await import("node:fs");
const fetch = async (name: string): Promise<Response> =>
  new Response(readFileSync(name && ${JSON.stringify(KERAS_FILE)}));
`;
const BEFORE_IN: Readonly<Record<string, string>> = {
  "hdf5.ts": HDF5,
  "tfjs/layer.ts": TENSORS,
  "tfjs/given.ts": TENSORS,
  "tfjs/keras-layer.ts": "",
  "tfjs/normalization.ts": "",
  "state/model.ts": TORCH,
  "state/onnx/fold.ts": ONNX,
  "state/torch/read.ts": TORCH,
  "state/torch/write.ts": TORCH,
  "state/onnx/read.ts": ONNX,
  "state/onnx/tap.ts": ONNX,
  "state/onnx/write.ts": ONNX,
  "state/keras/file.ts": HDF5,
  "state/keras/fold.ts": KERAS,
  "state/keras/read.ts": KERAS,
  "state/keras/write.ts": KERAS,
};

/** An example as a program: its imports first, then what it takes for granted, then itself in a block. */
function programOf({ name, file, code }: Example): Program {
  const own = code.match(/^import .*\n/gm) ?? [];
  const missing = (entry: string, names: string[]): string => {
    const wanted = names.filter((each) => !new RegExp(`\\b${each}\\b`).test(own.join("")));
    return `import { ${wanted.join(", ")} } from "${entry}";\n`;
  };
  const imports = [
    ...own,
    missing("batchnorm-wasm", Object.keys(main)),
    missing("batchnorm-wasm/state", Object.keys(state)),
    missing("batchnorm-wasm/hdf5", Object.keys(hdf5)),
  ];
  if (file === "tfjs/layer.ts" || file === "tfjs/given.ts") {
    if (!own.some((line) => line.includes(" tf ")))
      imports.push(`import * as tf from "@tensorflow/tfjs";\n`);
    imports.push(missing("batchnorm-wasm/tfjs", ["TfBatchNorm", "batchNorm"]));
  }
  const body = code.replace(/^import .*\n/gm, "").replace(/^(?=.)/gm, "  ");
  const before = BEFORE_IN[file] ?? BEFORE;
  return {
    name: `doc-${name.replace(/\W/g, "-")}`,
    steps: [{ code: `${imports.join("")}${before}{\n${body}}\n`, language: "ts", prints: "" }],
    files: new Map(),
  };
}

describe("examples in doc comments", () => {
  const programs = examples().map(programOf);

  it("compile", () => {
    expect(programs.length).toBeGreaterThan(15);
    programs.forEach(write);
    expect(compile(programs)).toEqual([]);
  });

  it.each(programs)("$name runs", async (program) => {
    write(program);
    await run(program);
  });
});
