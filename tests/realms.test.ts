// The package in a realm of its own within Node, as Jest, and Vitest with its pool `vmThreads`, run what they test:
// the sandbox has typed arrays of its own, but the Buffer of Node.

import { fileURLToPath } from "node:url";
import { createContext, runInContext } from "node:vm";
import { build } from "esbuild";
import { describe, expect, test } from "vitest";

const { outputFiles } = await build({
  stdin: {
    contents: 'export * from "./index.js";',
    resolveDir: fileURLToPath(new URL("../dist", import.meta.url)),
  },
  bundle: true,
  format: "iife",
  globalName: "api",
  write: false,
});
const { text } = outputFiles[0]!;

const SIZES = [64, 448, 512, 4096, 65536, 131072];

/** For each size, the answers of all methods whose results are fresh. */
const PROGRAM = `
  ${text}
  JSON.stringify(${JSON.stringify(SIZES)}.map((size) => {
    const bn = new api.BatchNorm(64);
    const x = Float32Array.from({ length: size }, (_, i) => i % 7);
    const results = [bn.infer(x), bn.freeze().infer(x)];
    if (size > 64) results.push(bn.train(x), bn.backward(x).dx);
    return results.map((y) => [y instanceof Float32Array, y.buffer instanceof ArrayBuffer]);
  }));`;

/** What a sandbox has of Node besides Buffer, and what `y.buffer instanceof ArrayBuffer` then is in it. */
const SANDBOXES: readonly (readonly [string, object, boolean])[] = [
  ["Vitest", {}, true],
  // Jest takes these from Node for the sake of Buffer; so in its sandbox no array's buffer is an ArrayBuffer.
  ["Jest", { ArrayBuffer, Uint8Array }, false],
];

describe.each(SANDBOXES)("in a sandbox as %s makes it", (_, globals, isInstance) => {
  test("results of every size are of its realm", () => {
    const answers = JSON.parse(
      runInContext(PROGRAM, createContext({ Buffer, ...globals })),
    ) as boolean[][][];
    expect(answers).toHaveLength(SIZES.length);
    for (const [i, results] of answers.entries()) {
      for (const answer of results) expect(answer, `${SIZES[i]}`).toEqual([true, isInstance]);
    }
  });
});
