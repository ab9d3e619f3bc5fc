// The package as users get it: packed, and the tarball installed into empty projects.

import { type ChildProcess, execFile, type SpawnOptions, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build } from "esbuild";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));
export const HERE = fileURLToPath(new URL("./", import.meta.url));
/**
 * Everything that a run makes. Not inside the checkout: there esbuild, and what builds on it, finds
 * the tsconfig.json above and takes the package from src/.
 */
export const WORK = mkdtempSync(join(tmpdir(), "batchnorm-wasm-runtimes-"));
const running = new Set<ChildProcess>();

process.on("exit", () => {
  for (const child of running) child.kill();
  rmSync(WORK, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(130));

/** Starts a program that goes on until it is killed, at the latest with this process. */
export function start(
  program: string,
  args: readonly string[],
  options: SpawnOptions = {},
): ChildProcess {
  const child = spawn(program, args, options);
  running.add(child);
  child.once("exit", () => running.delete(child));
  return child;
}
export const MODULES = join(HERE, "node_modules");

const execute = promisify(execFile);

/** Runs a program to its end. Throws with what it said if it fails. */
export async function run(
  program: string,
  args: readonly string[],
  options: { cwd?: string; env?: Record<string, string>; seconds?: number } = {},
): Promise<string> {
  const { cwd = WORK, env = {}, seconds = 120 } = options;
  try {
    const { stdout } = await execute(program, args, {
      cwd,
      env: { ...process.env, ...env },
      timeout: 1000 * seconds,
      maxBuffer: 64 << 20,
    });
    return stdout;
  } catch (error) {
    const { message, stdout, stderr } = error as Error & { stdout?: string; stderr?: string };
    throw new Error(`${message}\n${stdout ?? ""}${stderr ?? ""}`.trim());
  }
}

/** Writes files, by their names, into a folder. */
export async function write(folder: string, files: Record<string, string>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    const path = join(folder, name);
    await mkdir(join(path, ".."), { recursive: true });
    await writeFile(path, text);
  }
}

/** A binary that an npm package for this platform brings: scope/something/path. */
export function binaryOf(scope: string, path: string): string | undefined {
  const folder = join(MODULES, scope);
  const owner =
    existsSync(folder) && readdirSync(folder).find((name) => existsSync(join(folder, name, path)));
  return owner ? join(folder, owner, path) : undefined;
}

/** The version of a package installed here. */
export async function versionOf(name: string): Promise<string> {
  return JSON.parse(await readFile(join(MODULES, name, "package.json"), "utf8")).version;
}

let tarball = "";

/** Packs the built package. */
export async function pack(): Promise<void> {
  const args = ["pack", "--ignore-scripts", "--silent", "--pack-destination", WORK];
  tarball = join(WORK, (await run("npm", args, { cwd: ROOT })).trim());
}

let installed: Promise<string> | undefined;

/** An empty project with the tarball installed by npm: its folder. */
async function firstProject(): Promise<string> {
  const folder = join(WORK, "installed");
  const project = { name: "app", version: "1.0.0", private: true, type: "module" };
  await write(folder, { "package.json": JSON.stringify(project) });
  await run(
    "npm",
    ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", tarball],
    {
      cwd: folder,
    },
  );
  return folder;
}

/** Another such project, with these files, or those of a folder, in it. */
export async function project(
  name: string,
  files: Record<string, string>,
  from?: string,
): Promise<string> {
  const folder = join(WORK, name);
  // Without the links to commands: several trials share a folder, and links cannot be copied over links.
  const noLinks = (path: string): boolean => !/[\\/]\.bin$/.test(path);
  await cp(await (installed ??= firstProject()), folder, { recursive: true, filter: noLinks });
  if (from !== undefined) {
    // The example's own package.json asks for a released version: the tarball stands in for it.
    const filter = (path: string): boolean =>
      !/[\\/](node_modules|package(-lock)?\.json)$/.test(path);
    await cp(from, folder, { recursive: true, filter });
  }
  await write(folder, files);
  return folder;
}

/** Globals that the suite uses most, as names of its own: see `suite`. */
const GLOBALS = "Math, Number, Object, Array, Float32Array, Float64Array, Uint32Array";

/**
 * The conformance suite as one plain module. Edge runtimes on Node ask a proxy for each global at each
 * use, which made the suite's own work take 50 s there, and so does Jest.
 */
export async function suite(format: "esm" | "cjs" = "esm"): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [join(ROOT, "tests/conformance/suite.ts")],
    bundle: true,
    format,
    target: "es2022",
    platform: "neutral",
    minifySyntax: true,
    banner: { js: `const { ${GLOBALS} } = globalThis;` },
    write: false,
  });
  return outputFiles[0]!.text;
}

/** Files of a folder and all below it, by path. */
export async function filesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}
