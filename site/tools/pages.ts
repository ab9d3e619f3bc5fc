// Writes the Markdown that VitePress reads: the guides and other texts of the repository as they are, the
// pages of the site itself, and the files that examples of the guides read.

import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { filesIn } from "../../tests/support/examples.js";
import { addressOfPicture, PAGES, pageOf, ROOT, SITE } from "./paths.js";

const read = (file: string): string => readFileSync(join(ROOT, file), "utf8");

function write(file: string, content: string | Uint8Array): void {
  const path = join(PAGES, file);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}

/** The texts of the repository that are pages. */
const TEXTS = [
  ...readdirSync(join(ROOT, "docs/guides")).map((file) => `docs/guides/${file}`),
  "docs/architecture.md",
  "docs/tuning.md",
  "tests/runtimes/results.md",
  "bench/results/report.md",
  "CONTRIBUTING.md",
];

/** A section of the README, without its heading. */
function sectionOf(title: string): string {
  const section = read("README.md").split(`\n## ${title}\n`)[1]?.split("\n## ")[0];
  if (section === undefined) throw new Error(`README.md has no section "${title}".`);
  return section.trim();
}

/** Writes all pages but those of the API reference. */
export function writePages(): void {
  rmSync(PAGES, { recursive: true, force: true });
  for (const file of TEXTS) {
    const source = JSON.stringify(file);
    write(`${pageOf(file)}.md`, `---\nsource: ${source}\n---\n\n${read(file)}`);
  }
  for (const file of TEXTS) {
    for (const [, picture] of read(file).matchAll(/!\[[^\]]*\]\(([^)]+)\)/g)) {
      const path = join(dirname(file), picture);
      write(`public${addressOfPicture(path)}`, readFileSync(join(ROOT, path)));
    }
  }
  for (const file of readdirSync(join(SITE, "pages"), { recursive: true, withFileTypes: true })) {
    if (!file.isFile()) continue;
    const path = join(file.parentPath, file.name);
    const name = path.slice(join(SITE, "pages/").length);
    const content = readFileSync(path);
    if (!name.endsWith(".md")) write(name, content);
    else
      write(
        name,
        String(content).replace(/<!-- README: (.+) -->/g, (_, title) => sectionOf(title)),
      );
  }
  for (const guide of TEXTS) {
    for (const [, path] of filesIn(read(guide))) {
      write(`public/files/${path}`, readFileSync(join(ROOT, path)));
    }
  }
}
