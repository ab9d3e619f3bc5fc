// Measures in a worker, with the loops and the checks of the repository's own benchmark (bench/): every side first has to
// give the right answer, and then all sides take turns in short bursts.

import { type Case, type Data, makeCase, makeData, type Op } from "../../../bench/cases.js";
import { check, expect, limitsOf } from "../../../bench/check.js";
import { ours } from "../../../bench/ours.js";
import { js } from "../../../bench/peers/js.js";
import type { Peer, Session } from "../../../bench/peers/peer.js";
import { threaded } from "../../../bench/threaded.js";
import { tellOpenings } from "../nested.js";
import type { Figure, Report, RowTitle, SideName, Wish } from "./protocol.js";

interface Row extends RowTitle {
  readonly case: Case;
  readonly op: Op;
}

const ROWS_OF_256 = makeCase([256, 256], "NC");
const IMAGES = makeCase([8, 64, 28, 28], "NHWC");
const ONE = makeCase([1, 64], "NC");

const ROWS: readonly Row[] = [
  row("A training step, forward", "256 examples of 256 features", ROWS_OF_256, "train"),
  row("Its gradients", "256 examples of 256 features", ROWS_OF_256, "backward"),
  row("A training step, forward", "8 images, 28 × 28, 64 channels", IMAGES, "train"),
  row("Its gradients", "8 images, 28 × 28, 64 channels", IMAGES, "backward"),
  row("Test time", "8 images, 28 × 28, 64 channels", IMAGES, "infer"),
  row("Test time", "one example of 64 features", ONE, "infer"),
];

function row(title: string, shape: string, of: Case, op: Op): Row {
  return { title, shape, case: of, op };
}

/** How many bursts each side gets in a row. */
const ROUNDS = 12;
/** Milliseconds of a burst. Clocks of pages tick as seldom as once in a millisecond. */
const BURST = 20;

const report = (message: Report): void => postMessage(message);

interface Side {
  readonly name: SideName;
  readonly session: Session;
  calls: number;
  readonly times: number[];
}

async function sidesOf({ threads, tfjs }: Wish): Promise<Map<SideName, Peer>> {
  const peers = new Map<SideName, Peer>([
    ["one", ours.resident],
    ["loop", js],
  ]);
  if (threads !== undefined) peers.set("several", threaded("resident", threads));
  if (tfjs) peers.set("tfjs", await (await import("./tfjs.js")).tfjsOnWasm());
  return peers;
}

/** Opens a side, and holds its answer against float64. */
async function open(name: SideName, peer: Peer, { case: c, op }: Row, data: Data): Promise<Side> {
  const session = await peer.open(c, op, data);
  check(name, c, expect(c, op, data), await session.answer(), limitsOf(peer.kind));
  return { name, session, calls: 1, times: [] };
}

/**
 * Finds out how many calls fill a burst; meanwhile the engine optimizes the side. A burst counts only if it is long enough
 * three times, because a busy machine may interrupt a short one.
 */
async function warm(side: Side): Promise<void> {
  for (let enough = 0; enough < 3; ) {
    const spent = await side.session.sample(side.calls);
    if (spent >= BURST) enough++;
    else {
      enough = 0;
      side.calls = Math.ceil(side.calls * Math.min(8, (1.3 * BURST) / Math.max(spent, 1)));
    }
  }
}

/** The microseconds of a call, in one burst. A burst that is far too short has fewer calls than the engine can now do. */
async function burst(side: Side): Promise<number> {
  for (;;) {
    const spent = await side.session.sample(side.calls);
    if (spent > BURST / 4) return (1000 * spent) / side.calls;
    side.calls *= 4;
  }
}

function figureOf(times: readonly number[]): Figure {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.round(share * (sorted.length - 1))]!;
  return { median: at(0.5), low: at(0.25), high: at(0.75) };
}

/** Measures all sides of a row, in turns. */
async function measure(index: number, of: Row, peers: ReadonlyMap<SideName, Peer>): Promise<void> {
  const data = makeData(of.case);
  const sides: Side[] = [];
  for (const [name, peer] of peers) {
    if (peer.ops.includes(of.op)) sides.push(await open(name, peer, of, data));
  }
  for (const side of sides) await warm(side);
  for (let round = 0; round < ROUNDS; round++) {
    for (let i = 0; i < sides.length; i++) {
      const side = sides[(i + round) % sides.length]!;
      await side.session.sample(Math.ceil(side.calls / 8)); // its arrays come back into the caches
      side.times.push(await burst(side));
      const figure = figureOf(side.times);
      report({ kind: "figure", row: index, side: side.name, figure, round: round + 1 });
    }
  }
  for (const { session } of sides) session.close?.();
}

async function start(wish: Wish): Promise<void> {
  try {
    const rows = ROWS.map(({ title, shape }) => ({ title, shape }));
    report({ kind: "rows", rows, rounds: ROUNDS });
    const peers = await sidesOf(wish);
    for (const [index, each] of ROWS.entries()) await measure(index, each, peers);
    report({ kind: "done" });
  } catch (error) {
    report({ kind: "failed", message: String(error) });
  }
}

tellOpenings();
addEventListener("message", ({ data }: MessageEvent<Wish>) => void start(data));
