// Times the sides of one case against each other. This machine is shared and noisy, so no side is
// timed in one go: each round gives every side a short burst, in an order that turns from round to
// round. A burst is one tinybench run; its value is the median of its samples. What is kept of a side
// is its best burst and how far the median one is from it (`timeOf`).

import { Bench } from "tinybench";
import { type Case, type Data, LARGE, type PeerOp } from "./cases.js";
import { check, expect, limitsOf } from "./check.js";
import type { Peer, Session } from "./peers/peer.js";

export interface Effort {
  readonly rounds: number;
  /** Milliseconds of a burst. */
  readonly burst: number;
}

export interface Timing {
  readonly side: string;
  /** Microseconds a call: the best burst. */
  readonly time: number;
  /** The median burst over the best one: how quiet the machine was. */
  readonly noise: number;
  /** Largest error against float64, in units of max(1, |γ·x̂|, |β|), or |γ·dy|/√(σ²+ε). */
  readonly error: number;
}

/** Milliseconds of one sample: the clock then costs less than a thousandth. */
export const SAMPLE = 0.5;
/** In another process: waking it up costs tens of microseconds and its first call a cold cache. */
const NATIVE_SAMPLE = 3;
/** Milliseconds, and calls at least, until the engine has optimized what it will optimize. */
const WARM_UP = { time: 60, calls: 1 };
/**
 * Calls at most that are not timed before a burst of LARGE tensors, and milliseconds for them; one at least.
 * The caches then hold this side's arrays and no more of those of the side before. Milliseconds of train,
 * resident, on an Intel Xeon, behind another side: [16384,256] in the first call 5.1, in the 4th 3.4, in the
 * 8th 2.7; [100352,64] in the first 9.4, in the 4th 7.3, in the 8th 6.5, in the 16th 5.7, in the 30th 5.1. A
 * burst of 10 ms saw the first two or three.
 */
const SETTLE = { calls: 32, time: 150 };
/** A side whose calls are longer than a burst gets fewer rounds: this many times its share. */
const PATIENCE = 3;

/** Where the median burst is this many times the best, the rounds are made once more. */
const NOISY = 1.25;
const EXTENSIONS = 2;

interface Side {
  readonly peer: Peer;
  readonly session: Session;
  readonly error: number;
  readonly bursts: number[];
  calls: number;
  rounds: number;
  /** Calls not timed before a burst. */
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
      const copies = peer.kind === "copy";
      const limits = limitsOf(peer.kind);
      const error = copies ? 0 : check(peer.name, c, expected, await session.answer(), limits);
      const { rounds } = effort;
      sides.push({ peer, session, error, bursts: [], calls: 1, rounds, settle: 0 });
    }
    for (const side of sides) await warmUp(side, effort, c.size >= LARGE);
    for (let round = 0; round < EXTENSIONS * effort.rounds; round++) {
      if (round > 0 && round % effort.rounds === 0 && sides.every(isQuiet)) break;
      for (let i = 0; i < sides.length; i++) {
        const side = sides[(i + round) % sides.length];
        if (round % effort.rounds >= side.rounds) continue;
        // What the side before left behind is not this one's to collect.
        if (c.size >= LARGE) globalThis.gc?.();
        side.bursts.push(await burst(side, effort.burst));
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
  const sorted = [...bursts].sort((a, b) => a - b);
  return { time: sorted[0], noise: sorted[sorted.length >> 1] / sorted[0] };
}

/** A best burst that few others come near may be followed by a better one. */
const isQuiet = ({ bursts }: Side): boolean => summary(bursts).noise < NOISY;

async function warmUp(side: Side, effort: Effort, large: boolean): Promise<void> {
  const last = await warm(side.session);
  const sample = side.peer.kind === "native" ? NATIVE_SAMPLE : SAMPLE;
  side.calls = Math.max(1, Math.ceil(sample / last));
  const affordable = Math.floor((PATIENCE * effort.rounds * effort.burst) / last);
  side.rounds = Math.max(1, Math.min(effort.rounds, affordable));
  if (large) side.settle = Math.max(1, Math.min(SETTLE.calls, Math.floor(SETTLE.time / last)));
}

/** Calls until the engine has optimized; returns the milliseconds of one of the last calls. */
export async function warm(session: Session): Promise<number> {
  let calls = 0;
  let batch = 1;
  let last = Number.POSITIVE_INFINITY;
  for (let spent = 0; spent < WARM_UP.time || calls < WARM_UP.calls; ) {
    const took = await session.sample(batch);
    spent += took;
    calls += batch;
    last = took / batch;
    if (took < 1) batch *= 2;
  }
  return last;
}

/** Milliseconds a call: the median of the samples, of `calls` calls each, that fit into `time` ms. */
export async function burst(
  { session, calls, settle }: Pick<Side, "session" | "calls" | "settle">,
  time: number,
): Promise<number> {
  if (settle > 0) await session.sample(settle);
  const bench = new Bench({ time, iterations: 1, warmup: false, throws: true });
  let median = Number.NaN;
  bench.add(
    "burst",
    async () => {
      const took = await session.sample(calls);
      return { overriddenDuration: took / calls, overriddenIterationCost: took };
    },
    { async: true },
  );
  const [task] = await bench.run();
  if ("latency" in task.result) median = task.result.latency.p50;
  if (!(median > 0)) throw new Error(`a burst of ${time} ms gave no time: ${task.result.state}`);
  return median;
}
