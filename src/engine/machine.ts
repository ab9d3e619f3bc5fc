// What a machine is: instances of binaries with their memory. The exports of the binaries are written down here, argument by
// argument; tests/kernels/signatures.test.ts compares the names with those in assembly/.

import type { Gradients, Normalizer } from "../values/terms.js";
import type { At, Buffers, Memory } from "./memory.js";
import type { Operand } from "./operand.js";
import type { Pass } from "./plan.js";

/** The exports of the binary of frozen layers: see assembly/frozen.ts. Counts are of float32 values, strides of bytes. */
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
  /** The binary of `batchnorm-wasm/infer` lacks this kernel: it works on copies in a stream buffer, and these are in cache. */
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

/** The exports of the binary of layers (see assembly/index.ts), and those above. */
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
  /** Returns whether one of the values above 0 is not finite. */
  keepRows(
    y: At<"out">,
    bits: At<"bits">,
    x: At<"a">,
    add: At<"b">,
    terms: At<"terms">,
    rows: number,
    width: number,
  ): number;
  /** Returns whether one of the values above 0 is not finite. */
  keepPlanes(
    y: At<"out">,
    bits: At<"bits">,
    x: At<"a">,
    add: At<"b">,
    terms: At<"terms">,
    first: number,
    planes: number,
    channels: number,
    inner: number,
  ): number;
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
    whole: number,
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
    scratch: At<"scratch">,
    g: At<"out">,
    dy: At<"a">,
    x: At<"b">,
    add: At<"c" | "bits">,
    terms: At<"terms">,
    low: number,
    high: number,
    count: number,
    rows: number,
    width: number,
    stride: number,
    whole: number,
  ): void;
  gradientSumsPlanes(
    sumDy: At<"sumDy">,
    sumDyX: At<"sumDyX">,
    g: At<"out">,
    dy: At<"a">,
    x: At<"b">,
    center: At<"terms">,
    bits: At<"bits">,
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
    bessel: number,
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

/** The exports of the binary of several threads: see assembly/threads.ts. Kernels there share out large traversals. */
export interface ThreadExports {
  affineStrips: Exports["affineStrips"];
  affineSweep: Exports["affineStrips"];
  affinePlanes: Exports["affinePlanes"];
  gateRows: Exports["gateRows"];
  gatePlanes: Exports["gatePlanes"];
  momentsRows: Exports["momentsRows"];
  momentsPlanes: Exports["momentsPlanes"];
  gradientSumsRows: Exports["gradientSumsRows"];
  gradientSumsPlanes: Exports["gradientSumsPlanes"];
  gradientStrips: Exports["gradientStrips"];
  gradientSweep: Exports["gradientStrips"];
  gradientPlanes: Exports["gradientPlanes"];
  /** The whole of `backward` for some channels in planes, of which a piece has `each`. NaN if there is no activation. */
  backward(
    dx: At<"out">,
    dy: At<"a">,
    x: At<"b">,
    mean: At<"mean">,
    meanLow: At<"meanLow">,
    variance: At<"variance">,
    gamma: At<"gamma">,
    beta: At<"beta">,
    dgamma: At<"dgamma">,
    dbeta: At<"dbeta">,
    each: number,
    n: number,
    channels: number,
    inner: number,
    examples: number,
    epsilon: number,
    perValue: number,
    low: number,
    high: number,
  ): void;
  /** Into how many pieces some work is cut, if at most so many are possible; 1 if this thread is to do it alone. */
  pieces(work: number, possible: number): number;
  /** Ends the call before, if it was cut short in the middle. */
  settle(): void;
  /** Tells a thread which one it is, of how many, and where their memory lies. */
  tell(index: number, count: number, at: At<"room">): void;
  /** What a worker does until it is stopped. */
  work(): void;
  /** Ends all workers, and the call before, if it was cut short. */
  stop(): void;
}

/** What a frozen layer needs. */
export interface AffineMachine {
  readonly wasm: AffineExports;
  readonly memory: Buffers;
  /**
   * With several threads alone: the machine for a call with these arrays (src/threads/start.ts). `held` says how many stream
   * buffers the call needs, besides that of a residual `c`, if its ordinary arrays may be held there; else it is 0. The last
   * of them is the one that the call writes.
   */
  choose?(
    a: Float32Array,
    b?: Float32Array,
    c?: Float32Array | null,
    held?: number,
    d?: Float32Array | null,
  ): this;
  /** With several threads alone: ends a call that gave `held`. */
  leave?(): void;
}

/** What a layer needs. */
export interface Machine extends AffineMachine {
  readonly wasm: Exports;
  readonly memory: Memory;
  /** With several threads alone: how many there are, and what ends them. */
  readonly threads?: number;
  close?(): void;
  /** With several threads alone: `backward` in planes, if it does it; else it returns false. */
  near?(
    pass: Pass<Machine>,
    dy: Operand,
    into: Gradients,
    normalizer: Normalizer,
    perValue: number,
  ): boolean;
}

/** The machine for a call with these arrays: this one, unless it has several threads. */
export const machineFor = <M extends AffineMachine>(
  machine: M,
  a: Float32Array,
  b?: Float32Array,
  c?: Float32Array | null,
  held?: number,
  d?: Float32Array | null,
): M => machine.choose?.(a, b, c, held, d) ?? machine;
