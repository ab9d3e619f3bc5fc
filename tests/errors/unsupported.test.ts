// UnsupportedError: runtimes without WebAssembly SIMD, or that forbid compiling it.

import { createContext, runInContext } from "node:vm";
import type * as api from "batchnorm-wasm";
import { BatchNorm } from "batchnorm-wasm";
import { afterEach, describe, expect, test, vi } from "vitest";
import { assertSameBits } from "../support/compare.js";
import { normal } from "../support/data.js";

describe("UnsupportedError", () => {
  afterEach(() => {
    vi.unstubAllGlobals();
    vi.resetModules();
  });

  /** The package as loaded where WebAssembly is `replacement`. */
  async function loadedWhere(replacement: unknown): Promise<typeof api> {
    vi.resetModules();
    vi.stubGlobal("WebAssembly", replacement);
    return import("batchnorm-wasm");
  }

  const expectUnsupported = (fresh: typeof api, message: RegExp): void => {
    const layer = new fresh.BatchNorm(3);
    const state = JSON.stringify(layer.snapshot());
    for (const use of [
      () => layer.train(normal(12, 1)),
      () => layer.infer(normal(3000, 1)),
      () => new fresh.Kernels(),
    ]) {
      expect(use).toThrow(fresh.UnsupportedError);
      expect(use).toThrow(message);
    }
    expect(JSON.stringify(layer.snapshot())).toBe(state);
    expect(layer.lastBatch).toBeNull();
  };

  test("no WebAssembly", async () => {
    expectUnsupported(await loadedWhere(undefined), /^WebAssembly: expected .*got/);
  });

  test("no SIMD", async () => {
    const { CompileError } = WebAssembly;
    class Module {
      constructor() {
        throw new CompileError("invalid value type 's128'");
      }
    }
    const without = { ...WebAssembly, CompileError, Module, validate: () => false };
    expectUnsupported(await loadedWhere(without), /^WebAssembly: expected .*SIMD.*got/);
  });

  test("compiling forbidden: the directive that allows it", async () => {
    const context = createContext({}, { codeGeneration: { strings: true, wasm: false } });
    const forbidding = runInContext("WebAssembly", context);
    expect(() => new forbidding.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]))).toThrow();
    const fresh = await loadedWhere(forbidding);
    expectUnsupported(fresh, /^WebAssembly: expected .*got/);
    expectUnsupported(fresh, /Content-Security-Policy.*'wasm-unsafe-eval'.*script-src/);
  });

  test("instances forbidden, as by WebKit: the same", async () => {
    const { CompileError } = WebAssembly;
    class Instance {
      constructor() {
        throw new CompileError("Refused to create a WebAssembly object");
      }
    }
    const { Module, Memory, validate } = WebAssembly;
    const fresh = await loadedWhere({ Module, Memory, validate, Instance });
    expectUnsupported(fresh, /Content-Security-Policy.*'wasm-unsafe-eval'.*script-src.*Refused/);
  });

  test("where it is allowed again, the same layer works", async () => {
    const fresh = await loadedWhere(undefined);
    const layer = new fresh.BatchNorm(3);
    expect(() => layer.infer(normal(3000, 1))).toThrow(fresh.UnsupportedError);
    vi.unstubAllGlobals();
    assertSameBits("y", layer.infer(normal(3000, 1)), new BatchNorm(3).infer(normal(3000, 1)));
  });
});
