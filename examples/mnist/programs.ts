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
  const folders = (process.env.PATH ?? "").split(path.delimiter);
  const candidates = folders.flatMap((folder) => names.map((name) => path.join(folder, name)));
  return [process.env[variable], ...candidates].find(
    (file) => file !== undefined && isExecutable(file),
  );
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
