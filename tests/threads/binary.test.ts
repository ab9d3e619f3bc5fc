// The kernels on shared memory are the bytes that the compiler of assembly/ makes for such a memory.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";
import { expect, test } from "vitest";
import { onSharedMemory } from "../../src/threads/binary.js";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** An entry of assembly/ with the options of asconfig.json and a few others. */
async function compiled(entry: string, ...options: string[]): Promise<Uint8Array> {
  let binary = new Uint8Array();
  const config = JSON.parse(readFileSync(`${root}asconfig.json`, "utf8"));
  const { error, stderr } = await asc.main(
    [
      `assembly/${entry}.ts`,
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

test.each([
  ["frozen", "frozen"],
  ["index", "kernels"],
])("the same bytes: assembly/%s.ts", async (entry, binary) => {
  const plain = await compiled(entry);
  expect(plain).toEqual(new Uint8Array(readFileSync(`${root}build/${binary}.wasm`)));
  const shared = await compiled(
    entry,
    "--enable",
    "threads",
    "--sharedMemory",
    "--maximumMemory",
    "65536",
  );
  expect(shared.length).toBe(plain.length + 3);
  expect(onSharedMemory(plain)).toEqual(shared);
});

test("sections of 128 bytes and more before that of the imports are passed over", () => {
  const text = (value: string) => [value.length, ...Buffer.from(value)];
  // A section of 200 bytes with a name, which any place may have, and whose bytes are ids of the section of imports.
  const named = [0, 0xc8, 1, ...text("x"), ...new Uint8Array(198).fill(2)];
  const memory = [...text("env"), ...text("memory"), 2, 0, 0];
  const imports = [2, memory.length + 1, 1, ...memory];
  const head = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
  const binary = onSharedMemory(Uint8Array.from([...head, ...named, ...imports]));
  expect([...binary.subarray(0, head.length + named.length)]).toEqual([...head, ...named]);
  const module = new WebAssembly.Module(binary);
  const shared = new WebAssembly.Memory({ initial: 1, maximum: 65536, shared: true });
  expect(() => new WebAssembly.Instance(module, { env: { memory: shared } })).not.toThrow();
});

test.each([
  ["build/frozen.wasm", 4],
  ["dist/frozen.wasm", 4],
  ["build/kernels.wasm", 18],
  ["dist/kernels.wasm", 18],
])("%s runs on a shared memory", (file, kernels) => {
  const binary = onSharedMemory(readFileSync(`${root}${file}`));
  const memory = new WebAssembly.Memory({ initial: 16, maximum: 16, shared: true });
  const instance = new WebAssembly.Instance(new WebAssembly.Module(binary), { env: { memory } });
  expect(Object.keys(instance.exports).length).toBe(kernels);
});
