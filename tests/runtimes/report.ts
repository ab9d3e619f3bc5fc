// The tables of a run: for the terminal, and as Markdown for tests/runtimes/results.md and README.md.

import { readFile, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { join } from "node:path";
import { HERE, ROOT } from "./project.js";
import { kilobytes, PAGE_NAMES, SIZES } from "./sizes.js";
import type { Result, Trial } from "./trial.js";

/** What became of a trial: one of result, skipped, error. */
export interface Tried {
  readonly trial: Trial;
  readonly seconds: number;
  readonly result?: Result;
  /** The command that installs what is missing. */
  readonly skipped?: string;
  readonly error?: Error;
}

type Row = readonly string[];

/** Rows of the conformance table, then of what else was tried. */
function rowsOf(tried: readonly Tried[]): { suite: Row[]; others: Row[] } {
  const suite: Row[] = [];
  const others: Row[] = [];
  for (const { trial, result, skipped, error } of tried) {
    const { name } = trial;
    if (error) suite.push([name, "", "FAILED", ""]);
    else if (skipped) suite.push([name, "", "skipped", skipped]);
    else if (result?.outcome) {
      suite.push([name, result.version, String(result.outcome.checks), result.outcome.hash]);
    } else if (!trial.tags.includes("sizes"))
      others.push([name, result!.version, result!.found ?? ""]);
  }
  return { suite, others };
}

const SUITE = ["runtime", "version", "checks", "hash"];

/** The conformance table for the terminal. */
export function table(tried: readonly Tried[]): string {
  const rows = [SUITE, ...rowsOf(tried).suite];
  const widths = SUITE.map((_, k) => Math.max(...rows.map((row) => row[k]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, k) => cell.padEnd(widths[k]!))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

const markdown = (head: Row, rows: readonly Row[]): string =>
  [head, head.map(() => "---"), ...rows]
    .map(
      (row) =>
        `| ${row.map((cell) => cell.replaceAll("\n", " ").replaceAll("|", "\\|")).join(" | ")} |`,
    )
    .join("\n");

const BEGIN = "<!-- tests/runtimes: results -->";
const END = "<!-- end -->";

/** What the README says of all rows: they passed, with one hash. */
function summary(suite: readonly Row[]): string {
  const [, , checks, hash] = suite[0]!;
  return (
    `In the latest run, ${suite.length} runtimes and bundlers made ${checks} checks each, and all of them gave ` +
    `the same bits (hash \`${hash}\`). [The record](tests/runtimes/results.md) names them with their versions.`
  );
}

/** Writes results.md beside this file, and what it comes to into the README between its marks. */
export async function record(tried: readonly Tried[]): Promise<void> {
  const { suite, others } = rowsOf(tried);
  const sizes = [...SIZES].map(([name, bytes]) => [
    name,
    ...PAGE_NAMES.map((page) => kilobytes(bytes[page])),
  ]);
  const seconds = tried.reduce((sum, each) => sum + each.seconds, 0);
  const text = `# The package in every runtime

Made by \`npm run test:runtimes -- --record\` in ${Math.round(seconds)} s; ${cpus()[0]!.model}, ${process.platform} ${process.arch}.
Each row is a real run of \`tests/conformance/suite.ts\` on the packed tarball, installed by npm into
an empty project; the hash is over the bits of all results. The version is that of the bundler where
there is one.

${markdown(SUITE, suite)}

## Bytes of a page, by bundler

Minified and gzipped, everything that is emitted (for wrangler, the \`.wasm\` files beside the script). A page
that only uses \`FrozenBatchNorm\` is checked to have no training code.

${markdown(["bundler", ...PAGE_NAMES], sizes)}

## Policies, engines without SIMD, memory, examples

${markdown(["what", "version", "found"], others)}
`;
  await writeFile(join(HERE, "results.md"), text);
  const file = join(ROOT, "README.md");
  const readme = await readFile(file, "utf8");
  const [before, rest] = readme.split(BEGIN);
  const after = rest?.split(END).slice(1).join(END);
  if (after === undefined) throw new Error(`README.md: expected ${BEGIN} … ${END}, got none`);
  await writeFile(file, `${before}${BEGIN}\n\n${summary(suite)}\n\n${END}${after}`);
}
