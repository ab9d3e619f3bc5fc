// How tables of the report and of the terminal write what they show.

import type { PeerOp } from "./cases.js";
import type { Goal } from "./goals.js";

export const OP_NAMES: Readonly<Record<PeerOp, string>> = {
  infer: "infer",
  train: "train",
  backward: "backward",
  step: "train + backward",
};

/** Microseconds, with three digits. */
export const micro = (time: number | undefined): string =>
  time === undefined
    ? ""
    : time >= 1000
      ? Math.round(time).toLocaleString("en")
      : String(Number(time.toPrecision(3)));

export const verdict = (met: Goal["met"]): string => (met === null ? "–" : met ? "met" : "MISSED");

/** A table in Markdown. */
export const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map((_, i) => (i === 0 ? "---" : "---:")), ...rows]
    .map((cells) => `| ${cells.join(" | ")} |`)
    .join("\n");
