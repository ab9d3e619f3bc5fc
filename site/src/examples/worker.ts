// Runs the program of a guide up to one of its steps, in a worker, so that the page stays usable and a program that does
// not end can be stopped. Types are stripped, imports become calls of `require`, and each step is marked, so that what it
// prints is known to be its own.

import { formatWithOptions } from "node-inspect-extracted";
import { transform } from "sucrase";
import { tellOpenings } from "../nested.js";
import { type Files, fileSystem } from "./files.js";
import type { Answer, Program } from "./protocol.js";

/** What programs can import: fetched when one does. */
const MODULES: Readonly<Record<string, () => Promise<unknown>>> = {
  "batchnorm-wasm": () => import("batchnorm-wasm"),
  "batchnorm-wasm/infer": () => import("batchnorm-wasm/infer"),
  "batchnorm-wasm/state": () => import("batchnorm-wasm/state"),
  "batchnorm-wasm/hdf5": () => import("batchnorm-wasm/hdf5"),
  "batchnorm-wasm/tfjs": () => import("batchnorm-wasm/tfjs"),
  "batchnorm-wasm/tfjs-layers": () => import("batchnorm-wasm/tfjs-layers"),
  "batchnorm-wasm/threads": () => import("batchnorm-wasm/threads"),
  "@tensorflow/tfjs": () => import("./tfjs.js"),
};

const answer = (message: Answer): void => postMessage(message);

/** A console that prints as Node's does. */
function consoleOf(step: () => number): Pick<Console, "log" | "warn" | "error" | "info" | "debug"> {
  const print = (...values: unknown[]): void => {
    answer({ step: step(), text: `${formatWithOptions({ colors: false }, ...values)}\n` });
  };
  return { log: print, warn: print, error: print, info: print, debug: print };
}

/** The step to which a line of the joined program belongs, and its number there. */
function placeOf(line: number, steps: readonly string[]): { step: number; line: number } {
  let before = 0;
  for (const [step, code] of steps.entries()) {
    const lines = code.split("\n").length + 1;
    if (line <= before + lines) return { step, line: line - before };
    before += lines;
  }
  return { step: steps.length - 1, line: 1 };
}

/** From TypeScript to a script whose imports are calls. Throws a SyntaxError that says in which line, and has the step. */
function compile(steps: readonly string[]): string {
  const joined = steps.map((code, step) => `${code}\n__step(${step + 1});\n`).join("");
  try {
    return transform(joined, { transforms: ["typescript", "imports"], disableESTransforms: true })
      .code;
  } catch (error) {
    const { message, loc } = error as Error & { loc?: { line: number } };
    const { step, line } = placeOf(loc?.line ?? 1, steps);
    const what = message.replace(/^Error transforming [^:]*: /, "").replace(/ \(\d+:\d+\)$/, "");
    throw Object.assign(new SyntaxError(`line ${line}: ${what}`), { step });
  }
}

async function modulesOf(script: string, files: Files): Promise<(name: string) => unknown> {
  const modules = new Map<string, unknown>([["node:fs", fileSystem(files)]]);
  for (const [, name] of script.matchAll(/\brequire\('([^']+)'\)/g)) {
    const load = MODULES[name!];
    if (load) modules.set(name!, await load());
  }
  return (name) => {
    if (modules.has(name)) return modules.get(name);
    throw new Error(`This page has no module "${name}".`);
  };
}

async function filesOf(addresses: Readonly<Record<string, string>>): Promise<Files> {
  const fetched = Object.entries(addresses).map(async ([name, address]) => {
    const response = await fetch(address);
    if (!response.ok) throw new Error(`${name}: the server answers ${response.status}.`);
    return [name, new Uint8Array(await response.arrayBuffer())] as const;
  });
  return new Map(await Promise.all(fetched));
}

async function run({ steps, files }: Program): Promise<void> {
  let now = 0;
  try {
    const script = compile(steps);
    const require = await modulesOf(script, await filesOf(files));
    const AsyncFunction = (async () => {}).constructor as FunctionConstructor;
    const program = new AsyncFunction("require", "exports", "__step", script);
    // The worker's own console, since the package warns there too.
    Object.assign(
      console,
      consoleOf(() => now),
    );
    const began = performance.now();
    await program(require, {}, (step: number) => (now = step));
    answer({ done: performance.now() - began });
  } catch (error) {
    const { step = now } = error as { step?: number };
    answer({ failed: String(error), step: Math.min(step, steps.length - 1) });
  }
}

tellOpenings();
addEventListener("message", ({ data }: MessageEvent<Program>) => void run(data));
