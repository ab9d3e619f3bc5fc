// `npm run bench -- --block`: batch norm with what follows it in a network, a ReLU, or a residual and then a ReLU. The
// block in one call is measured against batch norm alone, against separate steps, and against other libraries. All
// take turns in one run, as in measure.ts.

import { BLOCK_OURS } from "./block-ours.js";
import { type After, CASES, type Case, makeData, type Op, opsOf, type PeerOp } from "./cases.js";
import { withoutTies } from "./check.js";
import { type Effort, measure } from "./measure.js";
import { BLOCK_LOADERS, loadPeers } from "./peers/index.js";
import type { Peer } from "./peers/peer.js";
import type { BlockResult, MeasuredBlock } from "./record.js";

const BLOCK_EFFORT: Effort = { rounds: 7, burst: 5 };
const AFTERS: readonly After[] = ["relu", "add, relu"];

export type Blocks = Pick<BlockResult, "effort" | "cases" | "peers" | "skipped">;

/** Measures the chosen cases, and prints a line for each side. */
export async function blocks(
  shape: (c: Case) => boolean,
  op: (op: Op) => boolean,
  side: (name: string) => boolean,
  status: (text: string) => void,
): Promise<Blocks> {
  const { peers, skipped } = await loadPeers(side, BLOCK_LOADERS);
  const cases: MeasuredBlock[] = [];
  try {
    for (const plain of CASES.filter(shape)) {
      for (const after of AFTERS) {
        const c = { ...plain, after };
        const data = withoutTies(c, { ...makeData(c), out: new Float32Array(c.size) });
        for (const each of opsOf(c).filter(op)) {
          status(`${c.name} ${c.layout} ${after} ${each}`);
          const taking = [...BLOCK_OURS, ...peers].filter((peer) => takesPart(peer, c, each));
          const timings = await measure(c, each, data, taking, BLOCK_EFFORT);
          cases.push({ name: c.name, layout: c.layout, size: c.size, op: each, after, timings });
          status("");
          console.log(lineOf(cases.at(-1)!));
        }
      }
    }
  } finally {
    for (const peer of peers) peer.close?.();
  }
  const named = peers.map(({ name, version, kind }) => ({ name, version, kind }));
  return { effort: BLOCK_EFFORT, cases, peers: named, skipped };
}

const takesPart = ({ ops, layouts, afters }: Peer, c: Case, op: PeerOp): boolean =>
  ops.includes(op) && layouts.includes(c.layout) && (afters?.includes(c.after!) ?? true);

/** The times of a case, in microseconds, the best burst of each side. */
function lineOf({ name, layout, op, after, timings }: MeasuredBlock): string {
  const each = timings.map(
    ({ side, time, noise }) => `${side} ${time.toPrecision(4)} (${noise.toFixed(2)})`,
  );
  return `${name} ${layout} ${after}: ${op}\n  ${each.join("; ")}`;
}
