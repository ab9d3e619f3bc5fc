// What goes wrong, in one line for the user of the command.

import { BatchNormError, OptionError } from "../index.js";
import { plain } from "./text.js";

/** Exit codes. A finding is no failure, unless `--strict` says so. */
export const EXIT = { done: 0, failed: 1, usage: 2, findings: 3 } as const;

/** The command line is wrong. */
export class UsageError extends Error {}

/** What was asked for cannot be done with this file. */
export class CommandError extends Error {}

/** What the system says of a file, by the code of its error. */
const SYSTEM: Readonly<Record<string, string>> = {
  ENOENT: "no such file",
  ENOTDIR: "no such file",
  EISDIR: "a folder, not a file",
  EACCES: "no permission",
  EPERM: "no permission",
  ENOSPC: "no space left",
  EROFS: "the file system is read-only",
};

/** Options of the readers that are options of the command, by what their messages begin with. */
const OPTIONS = /^(eps|momentum|layout|key|config):/;
/** What a reader asks for as two options is asked for here as two flags. */
const FLAGS = /^scale, center: expected one of them false/;

/** The message of an error, with options of the readers by the names that they have here. */
export function messageOf(error: unknown): string {
  const { message } = error as Error;
  if (!(error instanceof OptionError)) return message;
  return message
    .replace(FLAGS, "--no-scale, --no-center: expected one of them")
    .replace(OPTIONS, "--$1:");
}

/** An error as one line, without a stack. */
export function sentenceOf(error: unknown): string {
  const { message, code } = error as Error & { code?: string };
  if (error instanceof BatchNormError) return line(messageOf(error).replace(/^bytes: /, ""));
  if (code !== undefined && Object.hasOwn(SYSTEM, code)) return SYSTEM[code]!;
  if (error instanceof RangeError)
    return `too large for the memory of this process (${line(message)})`;
  return line(message);
}

const line = (message: string): string => plain(message.replace(/\s*\n\s*/g, " "));
