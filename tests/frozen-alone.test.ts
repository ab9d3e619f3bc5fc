// Frozen layers that nobody made a layer for: they do without the kernels that layers share, and use them once
// there are some. In processes of their own, on the package as built.

import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { layerOf, settle } from "./support/cases.js";
import { normal } from "./support/data.js";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

const layer = settle(layerOf({ layout: "NC", shape: [4, 5] }));
const JSON_TEXT = JSON.stringify(layer.freeze());
const FEW = normal(20, 1);
const MANY = normal(20_000, 2);

/** What a module prints, as JSON, in a process of its own. */
function run(code: string): unknown {
  const program = `
    const pages = [];
    const { Memory } = WebAssembly;
    WebAssembly.Memory = class extends Memory {
      constructor(type) { super(type); pages.push(type.initial); }
    };
    const given = ${JSON.stringify({ json: JSON_TEXT, few: [...FEW], many: [...MANY] })};
    const [few, many] = [Float32Array.from(given.few), Float32Array.from(given.many)];
    ${code}`;
  const { stdout, stderr, status } = spawnSync(process.execPath, ["--input-type=module"], {
    cwd: ROOT,
    input: program,
    encoding: "utf8",
    maxBuffer: 1 << 26,
  });
  expect(status, stderr).toBe(0);
  return JSON.parse(stdout);
}

describe("FrozenBatchNorm.fromJSON, first of all", () => {
  test.each(["batchnorm-wasm", "batchnorm-wasm/infer"])("%s works in a single MiB", (entry) => {
    const result = run(`
      const { FrozenBatchNorm } = await import("${entry}");
      const frozen = FrozenBatchNorm.fromJSON(given.json);
      const first = [...frozen.infer(few)];
      const before = pages.length;
      const mask = new Uint8Array(4000).fill(1);
      console.log(JSON.stringify({
        few: first, before, many: [...frozen.infer(many)], masked: [...frozen.infer(many, { mask })],
        none: frozen.infer(new Float32Array(0)).length, pages,
      }));`);
    const many = [...layer.infer(MANY)];
    expect(result).toEqual({
      few: [...layer.infer(FEW)],
      // A few values take no kernels at all.
      before: 0,
      many,
      masked: many,
      none: 0,
      pages: [16],
    });
  });

  test("takes tensors of the shared kernels in place, once there are some", () => {
    const result = run(`
      import { BatchNorm, FrozenBatchNorm } from "batchnorm-wasm";
      const frozen = FrozenBatchNorm.fromJSON(given.json);
      const alone = [...frozen.infer(many)];
      const { kernels } = new BatchNorm(5);
      const found = {};
      for (const [name, values] of Object.entries({ few, many })) {
        const tensor = kernels.alloc(values.length);
        tensor.set(values);
        const same = frozen.infer(tensor, { out: tensor }) === tensor;
        const y = [...tensor];
        kernels.free(tensor);
        let code = "none";
        try { frozen.infer(tensor); } catch (error) { code = error.code; }
        found[name] = { same, y, code };
      }
      console.log(JSON.stringify({ alone, ...found, memories: pages.length }));`);
    expect(result).toEqual({
      alone: [...layer.infer(MANY)],
      // That a freed tensor is refused says that it was taken for one.
      few: { same: true, y: [...layer.infer(FEW)], code: "STATE" },
      many: { same: true, y: [...layer.infer(MANY)], code: "STATE" },
      memories: 2,
    });
  });

  test("needs one binary, and works where that of layers is refused", () => {
    const result = run(`
      const { Module, CompileError } = WebAssembly;
      let [refuses, compiled] = [true, 0];
      WebAssembly.Module = class extends Module {
        constructor(bytes) {
          if (refuses) throw new CompileError("refused");
          super(bytes);
          compiled++;
        }
      };
      const { BatchNorm, FrozenBatchNorm } = await import("batchnorm-wasm");
      const frozen = FrozenBatchNorm.fromJSON(given.json);
      const bn = new BatchNorm(5);
      const counts = [];
      const tried = (use) => {
        let found = "none";
        try { found = [...use()]; } catch (error) { found = error.code; }
        counts.push(compiled + " " + pages.length);
        return found;
      };
      const infer = () => frozen.infer(many);
      const train = () => bn.train(many);
      const refused = [tried(infer), tried(train)];
      refuses = false;
      const alone = tried(infer);
      refuses = true;
      const without = [tried(train), bn.lastBatch, bn.batchesSeen];
      const meanwhile = tried(infer);
      refuses = false;
      const trained = tried(train).length;
      const after = tried(infer);
      console.log(JSON.stringify({ refused, alone, without, meanwhile, trained, after, counts }));`);
    const y = [...layer.infer(MANY)];
    expect(result).toEqual({
      refused: ["UNSUPPORTED", "UNSUPPORTED"],
      alone: y,
      without: ["UNSUPPORTED", null, 0],
      meanwhile: y,
      trained: 20_000,
      after: y,
      // How many binaries were compiled, and how many memories made, by then.
      counts: ["0 0", "0 0", "1 1", "1 1", "1 1", "2 2", "2 2"],
    });
  });

  test("uses no others where there are shared ones already", () => {
    const result = run(`
      import { BatchNorm, FrozenBatchNorm } from "batchnorm-wasm";
      new BatchNorm(5).infer(many);
      const before = pages.length;
      const y = [...FrozenBatchNorm.fromJSON(given.json).infer(many)];
      console.log(JSON.stringify({ y, more: pages.length - before }));`);
    expect(result).toEqual({ y: [...layer.infer(MANY)], more: 0 });
  });
});
