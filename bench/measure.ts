// Times the sides of one case against each other: a side is a library, or one way to call it.
//
// Other programs may slow the machine down at any moment, so no side is timed in one go. There are many short
// rounds, in each of which every side has one burst of calls; which side begins changes from round to round. A
// burst is one tinybench run, and its value is the median of its samples. Of each side the best burst is kept,
// and how much slower its median burst was (`timeOf` in record.ts says which of the two counts).

import { Bench } from "tinybench";
import { type Case, type Data, LARGE, type PeerOp } from "./cases.js";
import { check, expect, limitsOf } from "./check.js";
import { median } from "./median.js";
import type { Peer, Session } from "./peers/peer.js";

export interface Effort {
  readonly rounds: number;
  /** How long a burst lasts, in milliseconds. */
  readonly burst: number;
}

export interface Timing {
  readonly side: string;
  /** Microseconds of a call in the best burst. */
  readonly time: number;
  /** The median burst divided by the best one. 1 means that the machine was quiet. */
  readonly noise: number;
  /** The largest error against float64, in the units of check.ts. */
  readonly error: number;
}

/** Milliseconds of a sample: so long that reading the clock is less than a thousandth of it. */
export const SAMPLE = 0.5;
/** The same for a library in another process, which takes tens of microseconds to wake up and finds cold caches. */
const NATIVE_SAMPLE = 3;
/** How long a side is called before it is timed, and how often at least: the engine then has optimized it. */
const WARM_UP = { time: 60, calls: 2 };
/**
 * Before a burst with LARGE tensors a side makes this many calls that are not timed, or as many as this many
 * milliseconds allow, and at least one. Its arrays then lie in the caches, where those of the side before lay.
 */
const SETTLE = { calls: 32, time: 150 };
/** A slow side, whose single call is longer than a burst, gets fewer rounds: this many times its share of time. */
const PATIENCE = 3;
/** But at least so many, since of a single burst nobody knows whether the machine was quiet. */
const LEAST_ROUNDS = 2;

/** If the median burst takes this many times as long as the best one, all rounds are made again. */
const NOISY = 1.25;
const EXTENSIONS = 2;

interface Side {
  readonly peer: Peer;
  readonly session: Session;
  readonly error: number;
  readonly bursts: number[];
  calls: number;
  rounds: number;
  /** How many calls before a burst are not timed. */
  settle: number;
}

export async function measure(
  c: Case,
  op: PeerOp,
  data: Data,
  peers: readonly Peer[],
  effort: Effort,
): Promise<Timing[]> {
  const sides: Side[] = [];
  try {
    const expected = expect(c, op, data);
    for (const peer of peers) {
      const session = await peer.open(c, op, data);
      const unchecked = peer.kind === "copy" || peer.alone;
      const limits = limitsOf(peer.kind);
      const error = unchecked ? 0 : check(peer.name, c, expected, await session.answer(), limits);
      const { rounds } = effort;
      sides.push({ peer, session, error, bursts: [], calls: 1, rounds, settle: 0 });
    }
    for (const side of sides) await warmUp(side, effort, c.size >= LARGE);
    for (let round = 0; round < EXTENSIONS * effort.rounds; round++) {
      if (round > 0 && round % effort.rounds === 0 && sides.every(isQuiet)) break;
      for (let i = 0; i < sides.length; i++) {
        const side = sides[(i + round) % sides.length];
        if (round % effort.rounds >= side.rounds) continue;
        // Otherwise this side's time would include collecting the garbage of the side before.
        if (c.size >= LARGE) globalThis.gc?.();
        side.bursts.push(await burst(side, effort.burst));
        // Its warm-up, or the bursts so far, may have been slow by chance.
        side.rounds = roundsOf(effort, Math.min(...side.bursts));
      }
    }
  } finally {
    for (const { session } of sides) session.close?.();
  }
  return sides.map(({ peer, error, bursts }) => {
    const { time, noise } = summary(bursts);
    return { side: peer.name, time: 1000 * time, noise, error };
  });
}

function summary(bursts: readonly number[]): { time: number; noise: number } {
  const time = Math.min(...bursts);
  return { time, noise: median(bursts) / time };
}

/** If few bursts come near the best one, a better one is still to be expected. */
const isQuiet = ({ bursts }: Side): boolean => summary(bursts).noise < NOISY;

async function warmUp(side: Side, effort: Effort, large: boolean): Promise<void> {
  const last = await warm(side.session);
  const sample = side.peer.kind === "native" || side.peer.apart ? NATIVE_SAMPLE : SAMPLE;
  side.calls = Math.max(1, Math.ceil(sample / last));
  side.rounds = roundsOf(effort, last);
  if (large) side.settle = Math.max(1, Math.min(SETTLE.calls, Math.floor(SETTLE.time / last)));
}

/** In how many rounds a side takes part, a call of which takes so many milliseconds. */
function roundsOf({ rounds, burst }: Effort, call: number): number {
  const affordable = Math.floor((PATIENCE * rounds * burst) / call);
  return Math.max(LEAST_ROUNDS, Math.min(rounds, affordable));
}

/**
 * Calls a side until the engine has optimized it. Returns the milliseconds of a call by then: of the last two samples the
 * faster one counts, because other programs can slow a single one down many times.
 */
export async function warm(session: Session): Promise<number> {
  let calls = 0;
  let batch = 1;
  let before = Number.POSITIVE_INFINITY;
  let last = before;
  for (let spent = 0; spent < WARM_UP.time || calls < WARM_UP.calls; ) {
    const took = await session.sample(batch);
    spent += took;
    calls += batch;
    before = last;
    last = took / batch;
    if (took < 1) batch *= 2;
  }
  return Math.min(before, last);
}

/** Milliseconds of a call: the median of the samples that fit into `time` milliseconds, each of `calls` calls. */
export async function burst(
  { session, calls, settle }: Pick<Side, "session" | "calls" | "settle">,
  time: number,
): Promise<number> {
  if (settle > 0) await session.sample(settle);
  const bench = new Bench({ time, iterations: 1, warmup: false, throws: true });
  let middle = Number.NaN;
  bench.add(
    "burst",
    async () => {
      const took = await session.sample(calls);
      return { overriddenDuration: took / calls, overriddenIterationCost: took };
    },
    { async: true },
  );
  const [task] = await bench.run();
  if ("latency" in task.result) middle = task.result.latency.p50;
  if (!(middle > 0)) throw new Error(`a burst of ${time} ms gave no time: ${task.result.state}`);
  return middle;
}
