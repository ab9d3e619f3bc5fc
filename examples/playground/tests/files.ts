/** The packed files, unzipped, as the page gets them. */

import { readFileSync } from "node:fs";
import { gunzip } from "../src/packed.js";

export function file(name: "network" | "held-out" | "training"): Promise<Uint8Array> {
  return gunzip(new Uint8Array(readFileSync(new URL(`../data/${name}.bin`, import.meta.url))));
}
