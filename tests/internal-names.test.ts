// The names that the build shortens are the engine's alone: dist/ would break in silence otherwise.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { PROPERTIES, shortNames } from "../scripts/internal-names.mjs";
import { properties, shared } from "./support/api.js";

const binary = readFileSync(new URL("../build/kernels.wasm", import.meta.url));
const kernels = WebAssembly.Module.exports(new WebAssembly.Module(binary)).map(({ name }) => name);

describe("short names", () => {
  it("stand for properties of the engine and for kernels alone", () => {
    expect(kernels).toContain("momentsRows");
    expect(shared([...PROPERTIES, ...kernels])).toEqual([]);
  });

  it("are each of one property, and none that src/ has already", () => {
    const short = Object.values(shortNames(kernels));
    // Tables of src/state/ have letters as keys; they hold opcodes and fields of files, not objects of the engine.
    const long = properties("src/state/");
    expect(new Set(short).size).toBe(PROPERTIES.length + kernels.length);
    expect(short.filter((name) => long.has(name))).toEqual([]);
    expect(long).toContain("machine");
    expect(shared(short)).toEqual([]);
  });

  it("would not do for what is public, of the platform or read by a string", () => {
    const found = (name: string): string => shared([name]).join();
    expect(found("merge")).toContain("merge is public");
    expect(found("runningMean")).toContain("runningMean is public");
    expect(found("subarray")).toContain("subarray is of the platform or a package: src/");
    expect(found("slope")).toContain('"slope" is a string: src/engine/gradient.ts');
  });
});
