// Time a value and memory beyond the arrays, for arrays up to 1 Gi floats. Every point is a process
// of its own (growth-child.ts), so that its peak is that of this one call.

import { execFile } from "node:child_process";
import { freemem } from "node:os";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { OPS } from "./cases.js";
import type { Growth } from "./record.js";

const CHILD = fileURLToPath(new URL("growth-child.ts", import.meta.url));

/** 64 floats to 1 Gi floats, a 4 GiB array. */
const SIZES = [6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30].map((power) => 2 ** power);

async function point(op: string, floats: number, inPlace: boolean): Promise<Growth | null> {
  const arrays = (op === "backward" ? 2 : 1) + (inPlace ? 0 : 1);
  if (4 * floats * arrays > 0.8 * freemem()) return null;
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ["--expose-gc", "--import", "tsx", CHILD, op, String(floats), String(inPlace)],
    { maxBuffer: 2 ** 20 },
  );
  return JSON.parse(stdout);
}

/** In place, so that the largest array is all that the machine has to hold. */
export async function growth(say: (text: string) => void): Promise<Growth[]> {
  const points: Growth[] = [];
  for (const floats of SIZES) {
    for (const op of OPS) {
      if (floats === 64 && op !== "infer") continue;
      say(`${op} of ${floats.toLocaleString("en")} floats`);
      const made = await point(op, floats, true);
      if (made) points.push(made);
      else say(`${op} of ${floats.toLocaleString("en")} floats: skipped, too little free memory\n`);
    }
  }
  return points;
}

/** What a call on ordinary arrays of 256 Mi floats takes beside them, the result given in `out`. */
export async function extraMemory(say: (text: string) => void): Promise<Growth[]> {
  const points: Growth[] = [];
  for (const op of OPS) {
    say(`extra memory, ${op} of 256 Mi floats`);
    const made = await point(op, 2 ** 28, false);
    if (made) points.push(made);
  }
  return points;
}
