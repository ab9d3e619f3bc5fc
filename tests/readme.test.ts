// Runs every TypeScript example of the README, and of entries that have one at their head, against
// the built package.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { transformSync } from "esbuild";
import { describe, expect, it, vi } from "vitest";

const root = new URL("..", import.meta.url);
/** The built package under its own names. */
const resolved = (script: string): string =>
  script.replace(/(?<=from )"batchnorm-wasm(\/[\w-]+)?"/g, (_, entry?: string) =>
    JSON.stringify(new URL(`dist${entry ?? "/index"}.js`, root).href),
  );
const folder = fileURLToPath(new URL("build/readme/", root));

const read = (path: string): string => readFileSync(new URL(path, root), "utf8");
const text = read("README.md") + read("src/state.ts").replace(/^ \* ?/gm, "");
const examples = [...text.matchAll(/^```ts\n(.*?)^```/gms)].map((match) => match[1]!);

describe("README", () => {
  it("has examples", () => expect(examples.length).toBeGreaterThanOrEqual(5));

  it.each(examples.map((code, i) => [i + 1, code] as const))("example %i runs", async (i, code) => {
    const { code: script } = transformSync(code, { loader: "ts" });
    const names = [...code.matchAll(/^const (?:\{ ([^}]*) \}|(\w+))/gm)].flatMap((match) =>
      (match[1] ?? match[2]!).split(", "),
    );
    const file = `${folder}${i}.mjs`;
    mkdirSync(folder, { recursive: true });
    writeFileSync(file, `${resolved(script)}\nexport { ${names.join(", ")} };\n`);
    const log = vi.spyOn(console, "log").mockImplementation(() => {});
    const values: Record<string, unknown> = await import(
      /* @vite-ignore */ pathToFileURL(file).href
    );
    for (const value of Object.values(values)) {
      if (value instanceof Float32Array) expect(value.every(Number.isFinite)).toBe(true);
    }
    for (const [first] of log.mock.calls) expect(first).toBe(true);
    log.mockRestore();
  });
});
