// Files on the disk: read in pieces, so that it can be said how far a large one has come, and written whole or
// not at all.

import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { type ReadBeside, staysInside } from "./beside.js";
import { CommandError } from "./failure.js";
import type { ModelInput } from "./model.js";
import type { Progress } from "./terminal.js";

/** So many bytes are read at once. `readFileSync` would stop at 2 GiB, and say nothing on the way. */
const PIECE = 1 << 24;

/** Reads a file. */
export function readFile(path: string, progress: Progress): Uint8Array {
  const file = openSync(path, "r");
  try {
    const stat = fstatSync(file);
    if (stat.isDirectory()) {
      throw new CommandError(
        "a folder: name the file in it, its model.json or saved_model.pb for instance",
      );
    }
    // A pipe says no size.
    if (!stat.isFile()) return readFileSync(file);
    const bytes = new Uint8Array(stat.size);
    let at = 0;
    while (at < bytes.length) {
      const read = readSync(file, bytes, at, Math.min(PIECE, bytes.length - at), at);
      if (read === 0) break;
      at += read;
      progress.show(`reading ${basename(path)}`, at / bytes.length);
    }
    return bytes.subarray(0, at);
  } finally {
    closeSync(file);
  }
}

/** A model file, and the files beside it, of which none outside of its folder is read. */
export function inputAt(path: string, progress: Progress): ModelInput {
  const beside: ReadBeside = (name) => {
    if (!staysInside(name)) {
      throw new CommandError(
        `the file "${name}", which the model names, is not in the folder of the model: it is not read`,
      );
    }
    const place = join(dirname(path), name);
    return existsSync(place) ? readFile(place, progress) : null;
  };
  return { name: path, bytes: readFile(path, progress), beside };
}

/** A file to write: its path, and what is to be in it. */
export interface Output {
  readonly path: string;
  readonly content: Uint8Array | string;
}

/** Where to write: in a folder that exists, or is named with a slash at its end, under the name of the input. */
export function placeOf(out: string, name: string): string {
  const folder = /[/\\]$/.test(out) || (existsSync(out) && statSync(out).isDirectory());
  return folder ? join(out, basename(name)) : out;
}

/** Throws unless none of these files exists, or they may be overwritten. Called before any work is done, too. */
export function checkFree(paths: readonly string[], force: boolean): void {
  const taken = force ? undefined : paths.find((path) => existsSync(path));
  if (taken === undefined) return;
  throw new CommandError(`${taken} exists already; --force overwrites it`);
}

/**
 * Writes files, and the folders for them. All are written under other names first, in the same folders, and get their own
 * names when they all are whole: where one fails, nothing is replaced. The first of them, which names the others, comes
 * last then.
 */
export function writeFiles(outputs: readonly Output[], force: boolean): void {
  checkFree(
    outputs.map(({ path }) => path),
    force,
  );
  const drafts: [string, string][] = [];
  try {
    for (const { path, content } of outputs) {
      const draft = `${path}.${process.pid}.part`;
      mkdirSync(dirname(path), { recursive: true });
      const file = openSync(draft, "wx");
      drafts.unshift([draft, path]);
      try {
        writeFileSync(file, content);
      } finally {
        closeSync(file);
      }
    }
    for (const [draft, path] of drafts) renameSync(draft, path);
  } catch (error) {
    for (const [draft] of drafts) rmSync(draft, { force: true });
    throw error;
  }
}
