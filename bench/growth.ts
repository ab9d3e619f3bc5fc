// Time per value, and memory beside the arrays, for arrays of up to 1 Gi floats. Every point is measured in a
// process of its own (growth-child.ts), so that the peak of its memory is that of this one call.

import { execFile } from "node:child_process";
import { freemem } from "node:os";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { OPS } from "./cases.js";
import type { Growth } from "./record.js";

const CHILD = fileURLToPath(new URL("growth-child.ts", import.meta.url));

/** From 64 floats to 1 Gi floats, which is an array of 4 GiB. */
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

/** The results go into the input, so that the machine has to hold no second array of the largest size. */
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

/** The memory that a call on ordinary arrays of 256 Mi floats needs beside these arrays. */
export async function extraMemory(say: (text: string) => void): Promise<Growth[]> {
  const points: Growth[] = [];
  for (const op of OPS) {
    say(`extra memory, ${op} of 256 Mi floats`);
    const made = await point(op, 2 ** 28, false);
    if (made) points.push(made);
  }
  return points;
}
