// Tests the programs that people read in Markdown and in doc comments. It finds them, writes them below build/, has
// the compiler check them, and runs each in a process of its own, which imports the built package by its name.

import { execFile } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { buildSync, transformSync } from "esbuild";
import ts from "typescript";

const root = new URL("../..", import.meta.url);

/** A fenced block of a Markdown text. */
export interface Block {
  readonly language: string;
  /** The file that the block belongs to: the word after the language. "" if it belongs to the program itself. */
  readonly file: string;
  readonly code: string;
}

export const blocksOf = (markdown: string): Block[] =>
  [...markdown.matchAll(/^```(\w+)(?: (\S+))?\n(.*?)^```$/gms)].map(([, language, file, code]) => ({
    language: language!,
    file: file ?? "",
    code: code!,
  }));

/** The files that a guide's reader has, and where the tests have such: `<!-- file: name path -->`. */
export const filesIn = (guide: string): [name: string, path: string][] =>
  [...guide.matchAll(/^<!-- file: (\S+) (\S+) -->$/gm)].map(([, name, path]) => [name!, path!]);

/** A part of a program, and what the text says that it prints. */
interface Step {
  readonly code: string;
  readonly language: "ts" | "js";
  prints: string;
}

/** A program, which consists of steps. */
export interface Program {
  /** Its name, and that of its folder, build/examples/{name}. */
  readonly name: string;
  readonly steps: readonly Step[];
  /** Files that are written into the same folder. */
  readonly files: ReadonlyMap<string, string | Uint8Array>;
}

/**
 * Makes a program of blocks, for instance of all blocks of a guide. `ts` and `js` blocks are its steps or, if a
 * name stands behind the language, files. A `text` block is what the step before it prints. `given` are files that
 * the program reads.
 */
export function programOf(
  name: string,
  blocks: readonly Block[],
  given: ReadonlyMap<string, Uint8Array> = new Map(),
): Program {
  const steps: Step[] = [];
  const files = new Map<string, string | Uint8Array>(given);
  let printing: Step | undefined;
  for (const { language, file, code } of blocks) {
    if (language === "text" && printing !== undefined) printing.prints = code;
    printing = undefined;
    if (language !== "ts" && language !== "js") continue;
    if (file !== "") files.set(file, `${files.get(file) ?? ""}${code}`);
    else steps.push((printing = { code, language, prints: "" }));
  }
  return { name, steps, files };
}

/** Is printed between two steps, so that their outputs can be told apart. */
const MARK = "\u001e";

/** The names that a step declares at its top. */
const declaredIn = (code: string): string[] =>
  [...code.matchAll(/^(?:const|let) (?:[{[] ?([^}\]]*?) ?[}\]]|(\w+))/gm)].flatMap(
    ([, several, one]) => (one !== undefined ? [one] : several!.split(", ")),
  );

/** One script of all steps, which fails if a result is not finite. */
function scriptOf({ steps }: Program): string {
  const names = steps.flatMap(({ code }) => declaredIn(code));
  const finite = `for (const value of [${names.join(", ")}] as unknown[]) {
  if (value instanceof Float32Array && !value.every(Number.isFinite)) throw new Error("a result is not finite");
}
`;
  return [...steps.map(({ code }) => code), finite].join(
    `\nconsole.log(${JSON.stringify(MARK)});\n`,
  );
}

const TFJS = "@tensorflow/tfjs";
const TFJS_STAND_IN = fileURLToPath(new URL("tests/support/tfjs-stand-in.ts", root));

/** Bundles main.ts with the stand-in for TensorFlow.js, so that program and layer use the same copy of it. */
function bundleTfjs(folder: string): void {
  buildSync({
    entryPoints: [`${folder}main.ts`],
    outfile: `${folder}main.mjs`,
    bundle: true,
    format: "esm",
    platform: "node",
    mainFields: ["module", "main"],
    alias: { [TFJS]: TFJS_STAND_IN },
    ignoreAnnotations: true, // The stand-in works by side effects alone, and would be left out.
    banner: {
      js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);',
    },
    tsconfigRaw: {}, // Without it, the package's name would lead to its sources and not to what was built.
    logLevel: "silent",
  });
}

const folderOf = (name: string): string => fileURLToPath(new URL(`build/examples/${name}/`, root));

/** Writes a program into its folder, and returns the folder. */
export function write(program: Program): string {
  const folder = folderOf(program.name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const [file, code] of program.files) {
    mkdirSync(dirname(folder + file), { recursive: true });
    writeFileSync(folder + file, code);
  }
  const script = scriptOf(program);
  writeFileSync(`${folder}main.ts`, `${script}export {};\n`);
  if (script.includes(`"${TFJS}"`)) bundleTfjs(folder);
  else writeFileSync(`${folder}main.mjs`, transformSync(script, { loader: "ts" }).code);
  return folder;
}

/** Runs a program that `write` has written, and returns what each step printed. */
export async function run(program: Program): Promise<string[]> {
  const { stdout } = await promisify(execFile)(process.execPath, ["main.mjs"], {
    cwd: folderOf(program.name),
    timeout: 60_000,
  });
  return stdout.split(`${MARK}\n`).slice(0, program.steps.length);
}

/** Returns the compiler's errors in TypeScript programs that `write` has written; it is as strict as for `src/`. */
export function compile(programs: readonly Program[]): string[] {
  const { compilerOptions } = ts.readConfigFile(
    fileURLToPath(new URL("tsconfig.json", root)),
    ts.sys.readFile,
  ).config;
  const { options } = ts.convertCompilerOptionsFromJson(
    { ...compilerOptions, noUnusedLocals: false, paths: { [TFJS]: [TFJS_STAND_IN] } },
    fileURLToPath(root),
  );
  const found = ts.getPreEmitDiagnostics(
    ts.createProgram(
      programs
        .filter(({ steps }) => steps.every(({ language }) => language === "ts"))
        .map(({ name }) => `${folderOf(name)}main.ts`),
      options,
    ),
  );
  return found.map(({ file, start, messageText }) => {
    const at = file === undefined ? "" : file.getLineAndCharacterOfPosition(start ?? 0).line + 1;
    return `${file?.fileName.slice(folderOf(".").length - 2)}:${at} ${ts.flattenDiagnosticMessageText(messageText, "\n")}`;
  });
}
