// Which examples of a guide run in a page, and what is said under those that do not.

import { ENTRIES, specifierOf } from "../../scripts/entries.mjs";
import { blocksOf, filesIn } from "../../tests/support/examples.js";
import type { Run } from "../src/examples/run.js";

/** What examples may import in a page. */
const MODULES: readonly string[] = [...ENTRIES.map(specifierOf), "@tensorflow/tfjs", "node:fs"];

/** What else examples import, in words. */
const NEEDS: readonly (readonly [RegExp, string])[] = [
  [/^node:worker_threads$/, "the worker threads of Node"],
  [/^node:/, "Node"],
  [/^onnxruntime-node$/, "Node and onnxruntime"],
];

const importsOf = (code: string): string[] =>
  [...code.matchAll(/^(?:import|\} from)\b[^;]*?"([^"]+)";$/gm)].map(([, name]) => name!);

/** Why a block cannot run in a page, or undefined if it can. */
function obstacleOf(code: string): string | undefined {
  const other = importsOf(code).filter((name) => !MODULES.includes(name));
  if (other.length === 0) return undefined;
  const needs = NEEDS.find(([pattern]) => other.some((name) => pattern.test(name)));
  return `This example needs ${needs?.[1] ?? other.join(" and ")}, so it does not run on this page.`;
}

/**
 * For each fenced block of a text, what its frame is to say. Blocks that are no part of the program have none. All
 * blocks of a text are one program, so behind a block that cannot run no other can.
 */
export function runsOf(markdown: string): (Run | undefined)[] {
  const files = Object.fromEntries(filesIn(markdown));
  let broken: string | undefined;
  let step = 0;
  let threads = false;
  return blocksOf(markdown).map(({ language, file, code }) => {
    if (language !== "ts" && language !== "js") return undefined;
    if (file !== "") {
      return { why: `This is the file ${file}, which runs outside of this page.` };
    }
    const why = obstacleOf(code);
    if (broken !== undefined && why === undefined) {
      return { why: "This example goes on with the one above, which does not run on this page." };
    }
    broken ??= why;
    if (why !== undefined) return { why };
    threads ||= /"batchnorm-wasm\/threads"/.test(code);
    return {
      step: step++,
      threads,
      files,
      reads: [...code.matchAll(/readFileSync\("([^"]+)"/g)].map(([, name]) => name!),
    };
  });
}
