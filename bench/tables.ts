// How tables of the report and of the terminal write what they show.

import type { PeerOp } from "./cases.js";
import type { Goal } from "./goals.js";
import { median } from "./median.js";
import type { Measured, PeerInfo, Run } from "./record.js";

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

/** The commit of a run, as a part of a sentence. */
export const commitOf = ({ commit: { id, changed } }: Run): string =>
  id ? `commit ${id.slice(0, 12)}${changed ? " with changes" : ""}` : "no commit yet";

export const versionsOf = (peers: readonly PeerInfo[]): string =>
  peers.map(({ name, version }) => `${name} ${version}`).join(", ");

/** How many times as long as the best burst the median one took, in the middle of all sides and cases. */
export function noiseOf(cases: readonly Measured[]): number {
  return median(cases.flatMap(({ timings }) => timings.map((timing) => timing.noise)));
}

/** Goals with what was measured; `what` is the heading of the first column. */
export const goalTable = (what: string, list: readonly Goal[]): string =>
  table(
    [what, "goal", "measured", ""],
    list.map((each) => [each.what, each.goal, each.measured, verdict(each.met)]),
  );

/** A table in Markdown. */
export const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map((_, i) => (i === 0 ? "---" : "---:")), ...rows]
    .map((cells) => `| ${cells.join(" | ")} |`)
    .join("\n");
