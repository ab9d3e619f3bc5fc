// The kernels on shared memory are the bytes that the compiler of assembly/ makes for such a memory.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";
import { expect, test } from "vitest";
import { onSharedMemory } from "../../src/threads/binary.js";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** assembly/index.ts with the options of asconfig.json and a few others. */
async function compiled(...options: string[]): Promise<Uint8Array> {
  let binary = new Uint8Array();
  const config = JSON.parse(readFileSync(`${root}asconfig.json`, "utf8"));
  const { error, stderr } = await asc.main(
    [
      "assembly/index.ts",
      "--baseDir",
      root,
      "--config",
      "asconfig.json",
      "--outFile",
      "x.wasm",
      ...options,
    ],
    {
      readFile: (path) =>
        path === "asconfig.json"
          ? JSON.stringify({ options: config.options })
          : (read(`${root}${path}`) ?? null),
      writeFile: (_path, contents) => {
        binary = Uint8Array.from(contents as Uint8Array);
      },
      listFiles: () => [],
    },
  );
  if (error) throw new Error(stderr.toString());
  return binary;
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

test("the same bytes", async () => {
  const plain = await compiled();
  expect(plain).toEqual(new Uint8Array(readFileSync(`${root}build/kernels.wasm`)));
  const shared = await compiled(
    "--enable",
    "threads",
    "--sharedMemory",
    "--maximumMemory",
    "65536",
  );
  expect(shared.length).toBe(plain.length + 3);
  expect(onSharedMemory(plain)).toEqual(shared);
});

test.each(["build/kernels.wasm", "dist/kernels.wasm"])("%s runs on a shared memory", (file) => {
  const binary = onSharedMemory(readFileSync(`${root}${file}`));
  const memory = new WebAssembly.Memory({ initial: 16, maximum: 16, shared: true });
  const instance = new WebAssembly.Instance(new WebAssembly.Module(binary), { env: { memory } });
  expect(Object.keys(instance.exports).length).toBeGreaterThan(10);
});
