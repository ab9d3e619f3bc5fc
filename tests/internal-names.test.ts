// The names that the build shortens are known to src/ alone: what the package leaves in dist/ would break otherwise.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import * as index from "../dist/index.js";
import * as infer from "../dist/infer.js";
import * as tfjs from "../dist/tfjs.js";
import * as tfjsLayers from "../dist/tfjs-layers.js";
import { HIDDEN, PROPERTIES, shortNames } from "../scripts/internal-names.mjs";
import { enumMembers, knownOutside, properties } from "./support/names.js";

const kernels = ["frozen", "kernels"].flatMap((name) => {
  const binary = readFileSync(new URL(`../build/${name}.wasm`, import.meta.url));
  return WebAssembly.Module.exports(new WebAssembly.Module(binary)).map((each) => each.name);
});
const known = knownOutside();
const reasons = (names: readonly string[]): string[] =>
  names.flatMap((name) => known.get(name) ?? []);

describe("short names", () => {
  it("stand for properties that only src/ knows", () => {
    // Of any value it is asked whether it is what its member `$…` says: nobody else has that.
    const asked = "itself is of a type that is asserted: src/errors.ts";
    expect(reasons(PROPERTIES).filter((reason) => !reason.startsWith(asked))).toEqual([]);
  });

  it("are no names that a class of a user's may have, where users see the class", () => {
    const members: string[] = [];
    const bn = new index.BatchNorm(1);
    bn.train(Float32Array.of(1, 2));
    // No entry exports the class of this object.
    const seen: object[] = [bn.lastBatch as object];
    for (const entry of [index, infer, tfjs, tfjsLayers]) {
      for (const { prototype } of Object.values(entry) as { prototype?: object }[]) {
        if (prototype) seen.push(prototype);
      }
    }
    for (const object of seen) {
      for (let at: object | null = object; at !== null; at = Object.getPrototypeOf(at)) {
        members.push(...Object.getOwnPropertyNames(at));
      }
    }
    const short = Object.values(shortNames(kernels));
    const found = new Set(members.filter((name) => short.includes(name)));
    expect([...found].filter((name) => !name.startsWith("$"))).toEqual([]);
    expect(found.size).toBe(HIDDEN.length);
  });

  it("stand for no members of enums, which the build would no longer replace by their numbers", () => {
    const members = enumMembers();
    expect(members).toContain("valueInfo");
    expect(PROPERTIES.filter((name) => members.has(name))).toEqual([]);
  });

  it("stand for kernels that only src/ and the binaries know", () => {
    expect(kernels).toEqual(expect.arrayContaining(["affineSweep", "momentsRows"]));
    const asserted = "is of a type that is asserted: src/engine/instances.ts";
    expect(reasons(kernels).filter((reason) => !reason.includes(asserted))).toEqual([]);
  });

  it("are each of one property, and none that src/ has already", () => {
    const short = Object.values(shortNames(kernels));
    expect(new Set(short).size).toBe(PROPERTIES.length + kernels.length);
    const long = properties();
    expect(PROPERTIES.filter((name) => !long.has(name))).toEqual([]);
    expect(short.filter((name) => long.has(name))).toEqual([]);
    expect(reasons(short).filter((each) => / is (public|of the platform)/.test(each))).toEqual([]);
  });

  it.each([
    ["public in a class", "merge", "merge is public"],
    ["public in a result", "runningMean", "runningMean is public"],
    ["public in options", "updateRunning", "updateRunning is public"],
    ["public in what a function hands on", "varianceRatio", "varianceRatio is public"],
    ["of arrays", "subarray", "subarray is of the platform or a package: src/"],
    ["of an import of the binary", "env", "env goes where its type is forgotten: src/engine/"],
    ["of TensorFlow.js", "gradFunc", "gradFunc is of the platform or a package: src/tfjs/"],
    ["of its classes, overridden", "build", "build is of the platform or a package: src/"],
    ["inside of its backends", "dataIdMap", "dataIdMap is of a type that is asserted: src/tfjs/"],
    ["of a module of Node", "availableParallelism", "is of a type that is asserted: src/threads/"],
    ["a string that is a key", "slope", "slope is a string: src/engine/gradient.ts"],
    ["read from JSON", "class_name", "class_name is of a value without a type: src/state/keras/"],
    [
      "written to JSON",
      "input_layers",
      "input_layers goes where its type is forgotten: src/state/",
    ],
  ])("would not do for what is %s", (_, name, reason) => {
    expect(known.get(name)?.join("\n")).toContain(reason);
  });
});
