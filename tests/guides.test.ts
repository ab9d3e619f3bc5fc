// Runs every guide, each as the one program that its blocks are, against the built package, and
// compares what each block prints with the text block behind it.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { describe, expect, it } from "vitest";
import { blocksOf, compile, filesIn, programOf, run, write } from "./support/examples.js";

const root = new URL("..", import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, root), "utf8");

const guides = readdirSync(new URL("docs/guides/", root)).filter((file) => file.endsWith(".md"));
const programs = guides.map((file) => {
  const text = read(`docs/guides/${file}`);
  return programOf(file.replace(".md", ""), blocksOf(text), filesOf(text));
});

/** The files that a guide's program reads. */
function filesOf(guide: string): Map<string, Uint8Array> {
  return new Map(filesIn(guide).map(([name, path]) => [name, readFileSync(new URL(path, root))]));
}

describe("guides", () => {
  it("are programs that compile", () => {
    for (const program of programs) {
      expect(program.steps.length, program.name).toBeGreaterThan(0);
      write(program);
    }
    expect(compile(programs)).toEqual([]);
  });

  it.each(programs)("$name runs and prints what it says", async (program) => {
    write(program);
    expect(await run(program)).toEqual(program.steps.map(({ prints }) => prints));
  });
});

describe("the PyTorch guide", () => {
  const golden: { blocks: { code: string; prints: string }[] } = JSON.parse(
    read("tests/golden/from-pytorch.json"),
  );
  const numbersIn = (text: string): number[] =>
    [...text.replace(/grad_fn=<\w+>/g, "").matchAll(/-?\d+(?:\.\d*)?/g)].map(Number);
  const blocks = blocksOf(read("docs/guides/from-pytorch.md"));
  const python = [...blocks.keys()].filter((i) => blocks[i]!.language === "python");

  it("has the Python blocks that PyTorch ran", () => {
    expect(python.map((i) => blocks[i]!.code)).toEqual(golden.blocks.map(({ code }) => code));
  });

  // Six digits of PyTorch's float32, four of ours.
  it.each(python.map((at, i) => [i + 1, at] as const))("pair %i prints the same", (i, at) => {
    expect(blocks[at + 1]!.language).toBe("ts");
    const theirs = numbersIn(golden.blocks[i - 1]!.prints);
    const printed = blocks[at + 2]?.language === "text" ? blocks[at + 2]!.code : "";
    const ours = numbersIn(printed);
    expect(ours.length).toBe(theirs.length);
    ours.forEach((n, k) => {
      expect(Math.abs(n - theirs[k]!), `${n} and ${theirs[k]}`).toBeLessThan(5.2e-5);
    });
  });
});

describe("the Worker of the edge guide", () => {
  const program = programs.find(({ name }) => name === "edge")!;
  const bundle = (folder: string, conditions: string[]) =>
    build({
      entryPoints: [`${folder}worker.js`],
      outdir: `${folder}${conditions.join() || "plain"}`,
      bundle: true,
      format: "esm",
      conditions,
      loader: { ".wasm": "copy" },
      metafile: true,
      tsconfigRaw: {}, // the built package, not its sources
    });

  it("answers as the layer that was trained", async () => {
    const folder = write(program);
    const [printed] = await run(program);
    await bundle(folder, []);
    const { default: worker } = await import(/* @vite-ignore */ `${folder}plain/worker.js`);
    const ask = (body: string): Promise<Response> =>
      worker.fetch(new Request("http://localhost", { method: "POST", body }));
    const answer = await (await ask("[4, 60, 1500]")).json();
    expect(`${inspect(Float32Array.from(answer))}\n`).toBe(printed);
    const refused: [string, string][] = [
      ["[4, 60]", "x: expected rows of 3 channels, got 2 values"],
      ["[4, null, 1500]", "expected an array of float32 numbers"],
      ['{"length": 3}', "expected an array of float32 numbers"],
      ["[4, 1e39, 1500]", "expected an array of float32 numbers"],
      ["[4, 60, -3.41e38]", "expected an array of float32 numbers"],
      ["[1e400, 60, 1500]", "expected an array of float32 numbers"],
    ];
    for (const [body, error] of refused) {
      const response = await ask(body);
      expect([response.status, await response.json()]).toEqual([400, { error }]);
    }
  });

  it("bundled for workerd, has its binary beside it and no bytes to compile", async () => {
    const folder = write(program);
    await run(program);
    const { metafile } = await bundle(folder, ["workerd"]);
    const files = Object.keys(metafile.outputs);
    expect(files.filter((file) => file.endsWith(".wasm"))).toHaveLength(1);
    const script = readFileSync(`${folder}workerd/worker.js`, "utf8");
    expect(script).toMatch(/^import \w+ from "\.\/infer-\w+\.wasm";$/m);
    expect(script).not.toContain("new WebAssembly.Module");
  });

  const row = /^\| `(\w+)` of `(\S+)` \|.*\| ([\d.]+) \| ([\d.]+) \|$/gm;
  const rows = [...read("docs/guides/edge.md").matchAll(row)].map(
    ([, name, entry, page, worker]) => ({
      import: `{ ${name} } from "${entry}"`,
      page: Number(page),
      worker: Number(worker),
    }),
  );

  it.each(rows)("says the bytes of $import", async ({ import: what, page, worker }) => {
    for (const [stated, conditions] of [
      [page, []],
      [worker, ["workerd"]],
    ] as const) {
      const size = await gzippedSize(`export ${what}`, [...conditions]);
      expect(size).toBeLessThanOrEqual(stated);
      expect(size).toBeGreaterThan(stated - 0.5);
    }
  });

  it("has three imports in its table of bytes", () => expect(rows.length).toBe(3));
});

/** The size of a bundle with the files beside it, minified and gzipped, in KB. */
async function gzippedSize(contents: string, conditions: string[]): Promise<number> {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: fileURLToPath(root) },
    outdir: "out",
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    conditions,
    loader: { ".wasm": "copy" },
    write: false,
    tsconfigRaw: {},
  });
  const sizes = outputFiles.map((file) => gzipSync(file.contents, { level: 9 }).length);
  return sizes.reduce((sum, size) => sum + size, 0) / 1024;
}

describe("links", () => {
  const pages = ["README.md", "docs/README.md", ...guides.map((file) => `docs/guides/${file}`)];

  it.each(pages)("of %s lead somewhere", (page) => {
    const links = [...read(page).matchAll(/\]\(([^)\s]+)\)/g)].map(([, to]) => to!);
    for (const to of links.filter((each) => !/^https?:/.test(each))) {
      const [path, heading] = to.split("#");
      const target = new URL(path || page.replace(/.*\//, ""), new URL(page, root));
      expect(existsSync(target), to).toBe(true);
      if (heading !== undefined) expect(headingsOf(target), to).toContain(heading);
    }
  });

  it("of docs/README.md lead to every guide", () => {
    for (const file of guides) expect(read("docs/README.md")).toContain(`(guides/${file})`);
  });
});

/** The anchors that headings of a Markdown file get. */
function headingsOf(file: URL): string[] {
  return [...readFileSync(file, "utf8").matchAll(/^#+ (.*)$/gm)].map(([, text]) =>
    text!
      .toLowerCase()
      .replace(/[^\p{L}\p{N} -]/gu, "")
      .replaceAll(" ", "-"),
  );
}
