// An instance of the binary with its memory. The exports of the binary are written down here, argument by
// argument; tests/kernels/signatures.test.ts holds the names against assembly/.

import { instantiate } from "../wasm/compile.js";
import { kernelsModule } from "../wasm/embedded.js";
import type { At, Buffers, Memory } from "./memory.js";

/** The exports of the small binary: see assembly/infer.ts. Counts are of float32 values, strides of bytes. */
export interface AffineExports {
  affineStrips(
    y: At<"out">,
    x: At<"a">,
    add: At<"b">,
    terms: At<"terms">,
    low: number,
    high: number,
    rows: number,
    width: number,
    stride: number,
  ): void;
  /** The small binary lacks this kernel: it works on copies in its stream buffer alone, and these are in cache. */
  affineSweep?: AffineExports["affineStrips"];
  affinePlanes(
    y: At<"out">,
    x: At<"a">,
    add: At<"b">,
    terms: At<"terms">,
    low: number,
    high: number,
    first: number,
    planes: number,
    channels: number,
    inner: number,
  ): void;
  spread(
    columns: At<"column">,
    parameter: At<"channel">,
    channels: number,
    inner: number,
    repeats: number,
  ): void;
}

/** The exports of the binary: see assembly/index.ts. */
export interface Exports extends AffineExports {
  affineSweep: AffineExports["affineStrips"];
  gateRows(
    g: At<"out">,
    dy: At<"a">,
    x: At<"b">,
    add: At<"c">,
    terms: At<"terms">,
    low: number,
    high: number,
    rows: number,
    width: number,
    stride: number,
  ): void;
  gatePlanes(
    g: At<"out">,
    dy: At<"a">,
    x: At<"b">,
    add: At<"c">,
    terms: At<"terms">,
    low: number,
    high: number,
    first: number,
    planes: number,
    channels: number,
    inner: number,
  ): void;
  momentsRows(
    base: At<"base">,
    offset: At<"offset">,
    m2: At<"m2">,
    scratch: At<"scratch">,
    x: At<"a">,
    count: number,
    rows: number,
    width: number,
    stride: number,
  ): void;
  momentsPlanes(
    base: At<"base">,
    offset: At<"offset">,
    m2: At<"m2">,
    x: At<"a">,
    count: number,
    first: number,
    planes: number,
    channels: number,
    inner: number,
  ): void;
  gradientSumsRows(
    sumDy: At<"sumDy">,
    sumDyX: At<"sumDyX">,
    dy: At<"a">,
    x: At<"b">,
    center: At<"terms">,
    count: number,
    rows: number,
    width: number,
    stride: number,
  ): void;
  gradientSumsPlanes(
    sumDy: At<"sumDy">,
    sumDyX: At<"sumDyX">,
    dy: At<"a">,
    x: At<"b">,
    center: At<"terms">,
    count: number,
    first: number,
    planes: number,
    channels: number,
    inner: number,
  ): void;
  gradientStrips(
    dx: At<"out">,
    dy: At<"a">,
    x: At<"b">,
    terms: At<"terms">,
    rows: number,
    width: number,
    stride: number,
  ): void;
  gradientSweep: Exports["gradientStrips"];
  gradientPlanes(
    dx: At<"out">,
    dy: At<"a">,
    x: At<"b">,
    terms: At<"terms">,
    first: number,
    planes: number,
    channels: number,
    inner: number,
  ): void;
  mergeMoments(
    base: At<"base">,
    offset: At<"offset">,
    m2: At<"m2">,
    count: number,
    channels: number,
    pitch: number,
    times: number,
    step: number,
  ): void;
  mergeSums(
    sum: At<"sumDy" | "sumDyX">,
    channels: number,
    pitch: number,
    times: number,
    step: number,
  ): void;
  /** Returns the first channel whose variance is none; n if there is no such channel. */
  finishMoments(
    mean: At<"mean">,
    meanLow: At<"meanLow">,
    variance: At<"variance">,
    base: At<"base">,
    offset: At<"offset">,
    m2: At<"m2">,
    count: number,
    n: number,
  ): number;
  moveRunning(
    runningMean: At<"runningMean">,
    runningVariance: At<"runningVariance">,
    mean: At<"mean">,
    variance: At<"variance">,
    weight: number,
    correction: number,
    n: number,
  ): void;
  roundMeans(center: At<"terms">, mean: At<"mean">, n: number): void;
  /** Returns the first channel whose variance is none; n if there is no such channel. */
  scaleShift(
    terms: At<"terms">,
    mean: At<"mean">,
    meanLow: At<"meanLow">,
    variance: At<"variance">,
    gamma: At<"gamma">,
    beta: At<"beta">,
    epsilon: number,
    n: number,
  ): number;
  gradientTerms(
    terms: At<"terms">,
    dgamma: At<"dgamma">,
    dbeta: At<"dbeta">,
    sumDy: At<"sumDy">,
    sumDyX: At<"sumDyX">,
    mean: At<"mean">,
    variance: At<"variance">,
    gamma: At<"gamma">,
    epsilon: number,
    perValue: number,
    n: number,
  ): void;
}

/** What a frozen layer needs. */
export interface AffineMachine {
  readonly wasm: AffineExports;
  readonly memory: Buffers;
}

/** What a layer needs. */
export interface Machine {
  readonly wasm: Exports;
  readonly memory: Memory;
}

/** Starts the kernels on a memory. The memory is made only after they have been compiled, which may fail. */
export function start<E extends AffineExports, M extends Buffers>(
  memoryOf: () => M,
): { wasm: E; memory: M } {
  const module = kernelsModule();
  const memory = memoryOf();
  const exports = instantiate(module, { env: { memory: memory.wasm } });
  return { wasm: exports as unknown as E, memory };
}
