// `npm run bench -- --cycle`: normalizes observations as they come, [8, 17], by the statistics of all so far, and clips
// them to ±10, as docs/guides/features-that-drift.md does: by an adapter, and by `Moments`; and the same by the loop in
// JavaScript that one would write in their place (Welford 1962). Then by an adapter that remembers the latest
// observations, and by such a loop. All take turns in one process, so that other programs slow all of them down alike;
// the ratios are those of neighbouring bursts. Times include the collection of garbage.

import { adapter, BatchNorm, FrozenBatchNorm } from "../dist/index.js";
import { median } from "./median.js";

const ROWS = 8;
const CHANNELS = 17;
const EPSILON = 1e-8;
const CLIP = 10;
/** Observations that a memory holds which is not infinite. */
const MEMORY = 40;
const ROUNDS = 300;
const WARM_UP = 20_000;
/** Milliseconds of a burst. */
const BURST = 1;

const batches = Array.from({ length: 16 }, (_, b) =>
  Float32Array.from({ length: ROWS * CHANNELS }, (_, i) => 3 + 4 * Math.sin(i * 0.7 + b * 12.9898)),
);

/** Normalizes a batch into `out`, after it has entered the statistics. */
type Cycle = (x: Float32Array, out: Float32Array) => void;

/**
 * Has observations enter `count` others; returns how many there are then. It is a function of its own, and so is what comes
 * after it, because V8 makes faster code of them: a cycle took 1.13 µs as a single function, and takes 0.94.
 */
function enter(x: Float32Array, mean: Float64Array, m2: Float64Array, count: number): number {
  for (let i = 0; i < x.length; i += CHANNELS) {
    count++;
    for (let c = 0; c < CHANNELS; c++) {
      const apart = x[i + c] - mean[c];
      mean[c] += apart / count;
      m2[c] += apart * (x[i + c] - mean[c]);
    }
  }
  return count;
}

function normalize(
  x: Float32Array,
  out: Float32Array,
  mean: Float64Array,
  m2: Float64Array,
  count: number,
): void {
  for (let i = 0; i < x.length; i += CHANNELS) {
    for (let c = 0; c < CHANNELS; c++) {
      const y = (x[i + c] - mean[c]) / Math.sqrt(m2[c] / count + EPSILON);
      out[i + c] = Math.max(-CLIP, Math.min(CLIP, y));
    }
  }
}

function loop(): Cycle {
  const mean = new Float64Array(CHANNELS);
  const m2 = new Float64Array(CHANNELS);
  let count = 0;
  return (x, out) => {
    count = enter(x, mean, m2, count);
    normalize(x, out, mean, m2, count);
  };
}

/** What came before the latest observations fades, as in an adapter. */
function fadingLoop(): Cycle {
  const mean = new Float64Array(CHANNELS);
  const m2 = new Float64Array(CHANNELS);
  let count = 0;
  return (x, out) => {
    if (count + ROWS > MEMORY) {
      for (let c = 0; c < CHANNELS; c++) m2[c] *= (MEMORY - ROWS) / count;
      count = MEMORY - ROWS;
    }
    count = enter(x, mean, m2, count);
    normalize(x, out, mean, m2, count);
  };
}

const layer = (): BatchNorm =>
  new BatchNorm(CHANNELS, {
    gamma: false,
    beta: false,
    epsilon: EPSILON,
    activation: [-CLIP, CLIP],
    runningVarianceOf: "population",
  });

function byAdapter(memory: number): Cycle {
  const stream = adapter(layer(), { prior: 0, memory });
  return (x, out) => {
    stream.infer(x, { out });
  };
}

function bySetRunning(): Cycle {
  const bn = layer();
  let seen = bn.moments(new Float32Array(0));
  return (x, out) => {
    seen = seen.merge(bn.moments(x));
    bn.setRunning(seen);
    bn.infer(x, { out });
  };
}

function byFrozen(): Cycle {
  const bn = layer();
  let seen = bn.moments(new Float32Array(0));
  return (x, out) => {
    seen = seen.merge(bn.moments(x));
    FrozenBatchNorm.fromMoments(seen, { epsilon: EPSILON, activation: [-CLIP, CLIP] }).infer(x, {
      out,
    });
  };
}

/** Ways to do it, and which of them is the loop that does the same. */
const SIDES: readonly (readonly [name: string, make: () => Cycle, loop: number])[] = [
  ["JavaScript loop", loop, 0],
  ["adapter.infer", () => byAdapter(Infinity), 0],
  ["moments, merge, setRunning, infer", bySetRunning, 0],
  ["moments, merge, fromMoments, infer", byFrozen, 0],
  [`JavaScript loop, memory ${MEMORY}`, fadingLoop, 4],
  [`adapter.infer, memory ${MEMORY}`, () => byAdapter(MEMORY), 4],
];

export function cycle(): void {
  const sides = SIDES.map(([name, make, like]) => ({
    name,
    like,
    run: make(),
    times: [] as number[],
    calls: 1,
  }));
  const outs = sides.map(() => new Float32Array(ROWS * CHANNELS));
  const burst = (side: number, calls: number): number => {
    const { run } = sides[side];
    const start = performance.now();
    for (let i = 0; i < calls; i++) run(batches[i % batches.length], outs[side]);
    return (performance.now() - start) / calls;
  };
  sides.forEach((side, s) => {
    side.calls = Math.ceil(BURST / burst(s, WARM_UP));
    // Each has now seen the same batches, so those that do the same give the same values.
    const expected = outs[side.like];
    const wrong = outs[s].findIndex((y, i) => !(Math.abs(y - expected[i]) < 1e-5));
    if (wrong >= 0) throw new Error(`${side.name}: ${outs[s][wrong]}, not ${expected[wrong]}`);
  });
  for (let round = 0; round < ROUNDS; round++) {
    for (let i = 0; i < sides.length; i++) {
      const s = (i + round) % sides.length;
      sides[s].times.push(1000 * burst(s, sides[s].calls));
    }
  }
  console.log(
    `Observations [${ROWS}, ${CHANNELS}]: µs a cycle (median), over the JavaScript loop that does the same\n`,
  );
  const ratios = sides.map(({ times, like }) =>
    median(times.map((t, r) => t / sides[like].times[r])),
  );
  sides.forEach(({ name, times }, s) => {
    const time = median(times).toFixed(2).padStart(7);
    console.log(`${name.padEnd(36)} ${time}  ${ratios[s].toFixed(2).padStart(6)}`);
  });
}
