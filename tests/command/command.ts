// The command as tests run it: in this process, with streams that keep what is written, and as a process.

import { execFile } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";
import { run } from "../../src/command/main.js";

/** What a run of the command left. */
export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the command with streams that are no terminals. */
export function command(args: readonly string[], env: Record<string, string> = {}): Outcome {
  const written = { stdout: "", stderr: "" };
  const streamTo = (name: "stdout" | "stderr") => ({
    write(text: string | Uint8Array): boolean {
      written[name] += text;
      return true;
    },
  });
  const code = run(args, {
    stdout: streamTo("stdout"),
    stderr: streamTo("stderr"),
    env,
    version: "1.2.3",
  });
  return { code, ...written };
}

const root = new URL("../../", import.meta.url);

/** Runs a program of Node, in a terminal of so many columns as far as COLUMNS tells. */
export const node = (args: readonly string[], cwd?: string, columns = ""): Promise<Outcome> =>
  new Promise((resolve) => {
    const env = { ...process.env, COLUMNS: columns };
    execFile(process.execPath, args, { cwd, env }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });

/** The command as it was built. */
export const COMMAND = fileURLToPath(new URL("dist/command.js", root));

/** The path of a golden file. */
export const golden = (name: string): string =>
  fileURLToPath(new URL(`tests/golden/state/${name}`, root));

/** A folder for the files of a test, removed at its end. */
export function folder(): { at: (name: string) => string; copy: (...names: string[]) => string } {
  const path = mkdtempSync(join(tmpdir(), "batchnorm-wasm-command-"));
  afterAll(() => rmSync(path, { recursive: true, force: true }));
  const at = (name: string): string => join(path, name);
  /** Copies golden files, each given with the name that it is to have; returns the path of the first. */
  const copy = (...names: string[]): string => {
    const places = names.map((name) => {
      const [from, to = from!.split("/").at(-1)!] = name.split(" as ");
      mkdirSync(dirname(at(to)), { recursive: true });
      copyFileSync(golden(from!), at(to));
      return at(to);
    });
    return places[0]!;
  };
  return { at, copy };
}

export const bytesAt = (path: string | URL): Uint8Array => new Uint8Array(readFileSync(path));
