/** Browsers that are on this machine. */

import { accessSync, constants } from "node:fs";
import path from "node:path";

/** Under which names they are looked for, what variable names another one, what to say if there is none. */
export const PROGRAMS = {
  chromium: {
    names: ["chromium", "chromium-browser", "google-chrome"],
    variable: "CHROMIUM",
    missing: "no Chromium found: install the package chromium, or set CHROMIUM to its path.",
  },
  firefox: {
    names: ["firefox", "firefox-esr"],
    variable: "FIREFOX",
    missing: "no Firefox found: install the package firefox-esr, or set FIREFOX to its path.",
  },
} as const;

/** Where it is, or `undefined`. */
export function findProgram(program: keyof typeof PROGRAMS): string | undefined {
  const { names, variable } = PROGRAMS[program];
  const own = process.env[variable];
  return own !== undefined && isExecutable(own) ? own : find(...names);
}

/** The first of these programs that there is, by its path or by its name in a folder of PATH; or `undefined`. */
export function find(...names: readonly string[]): string | undefined {
  const folders = (process.env.PATH ?? "").split(path.delimiter);
  return names
    .flatMap((name) =>
      path.isAbsolute(name) ? [name] : folders.map((folder) => path.join(folder, name)),
    )
    .find(isExecutable);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
