// What a page carries of the package, by bundler: three pages, minified and gzipped, with everything
// that is emitted for them. A page that only uses FrozenBatchNorm has none of the training code.

import { readFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { BUNDLERS, wrangle } from "./bundlers.js";
import { filesIn, project, versionOf } from "./project.js";
import { expect, type Trial } from "./trial.js";

const PAGES = {
  "batchnorm-wasm/infer": `import { FrozenBatchNorm } from "batchnorm-wasm/infer";
export const answer = (json, x) => FrozenBatchNorm.fromJSON(json).infer(x);
`,
  FrozenBatchNorm: `import { FrozenBatchNorm } from "batchnorm-wasm";
export const answer = (json, x) => FrozenBatchNorm.fromJSON(json).infer(x);
`,
  "a training page": `import { BatchNorm } from "batchnorm-wasm";
export const answer = (json, x) => {
  const bn = new BatchNorm(json.channels);
  const y = bn.train(x);
  return [bn.backward(y), bn.infer(x)];
};
`,
};

export type Page = keyof typeof PAGES;
export const PAGE_NAMES = Object.keys(PAGES) as Page[];

/** Of the text of an error that only training throws. */
const TRAINING = "whose variance says nothing";

/** Bytes of each page by bundler, as trials measured them. */
export const SIZES = new Map<string, Record<Page, number>>();

async function measure(folder: string, name: string, page: Page): Promise<number> {
  const out = join(folder, "out");
  let size = 0;
  let text = "";
  for (const file of await filesIn(out)) {
    if (![".js", ".wasm"].includes(extname(file))) continue;
    const content = await readFile(join(out, file));
    size += gzipSync(content, { level: 9 }).length;
    text += content.toString("latin1");
  }
  const trains = text.includes(TRAINING);
  const expected = page === "a training page";
  expect(
    trains === expected,
    `${expected ? "" : "no "}training code in ${page} by ${name}`,
    trains,
  );
  return size;
}

function sizesOf(
  name: string,
  packageName: string,
  bundle: (folder: string, entry: string) => Promise<void>,
): Trial {
  return {
    name: `Bytes, ${name}`,
    tags: ["sizes", packageName],
    async run() {
      const sizes = {} as Record<Page, number>;
      for (const [i, page] of PAGE_NAMES.entries()) {
        const folder = await project(`size-${packageName}-${i}`, {
          "answer.js": PAGES[page],
          // Bundlers drop what nobody can see.
          "main.js": `import { answer } from "./answer.js";\nglobalThis.answer = answer;\n`,
          "worker.js": `import { answer } from "./answer.js";
export default { fetch: async (request) => Response.json(answer(...(await request.json()))) };
`,
        });
        await bundle(folder, name === "wrangler" ? "worker.js" : "main.js");
        sizes[page] = await measure(folder, name, page);
      }
      SIZES.set(name, sizes);
      const found = PAGE_NAMES.map((page) => `${page} ${kilobytes(sizes[page])}`).join(", ");
      return { version: await versionOf(packageName), found };
    },
  };
}

export const kilobytes = (bytes: number): string => `${(bytes / 1024).toFixed(2)} KB`;

export const SIZE_TRIALS: readonly Trial[] = [
  ...BUNDLERS.map(({ name, packageName, bundle }) => sizesOf(name, packageName, bundle)),
  sizesOf("wrangler", "wrangler", (folder, entry) => wrangle(folder, entry, true)),
];
