// The kernels that assembly/pieces.ts calls. They are imported from instances of the binaries of frozen.ts and index.ts, so that the
// package has each kernel once.

// @ts-ignore: decorator
@external("kernels", "affineStrips")
export declare function affineStrips(
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32, rows: u32, width: u32, stride: usize,
): void;

// @ts-ignore: decorator
@external("kernels", "affineSweep")
export declare function affineSweep(
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32, rows: u32, width: u32, stride: usize,
): void;

// @ts-ignore: decorator
@external("kernels", "affinePlanes")
export declare function affinePlanes(
  y: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  first: u32, planes: u32, channels: u32, inner: u32,
): void;

// @ts-ignore: decorator
@external("kernels", "gateRows")
export declare function gateRows(
  g: usize, dy: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  rows: u32, width: u32, stride: usize,
): void;

// @ts-ignore: decorator
@external("kernels", "gatePlanes")
export declare function gatePlanes(
  g: usize, dy: usize, x: usize, add: usize, terms: usize, low: f32, high: f32,
  first: u32, planes: u32, channels: u32, inner: u32,
): void;

// @ts-ignore: decorator
@external("kernels", "momentsRows")
export declare function momentsRows(
  base: usize, offset: usize, m2: usize, scratch: usize, x: usize, count: f64,
  rows: u32, width: u32, stride: usize, whole: u32,
): void;

// @ts-ignore: decorator
@external("kernels", "momentsPlanes")
export declare function momentsPlanes(
  base: usize, offset: usize, m2: usize, x: usize, count: f64,
  first: u32, planes: u32, channels: u32, inner: u32,
): void;

// @ts-ignore: decorator
@external("kernels", "gradientSumsRows")
export declare function gradientSumsRows(
  sumDy: usize, sumDyX: usize, scratch: usize, g: usize, dy: usize, x: usize, add: usize, terms: usize,
  low: f32, high: f32, count: f64, rows: u32, width: u32, stride: usize, whole: u32,
): void;

// @ts-ignore: decorator
@external("kernels", "gradientSumsPlanes")
export declare function gradientSumsPlanes(
  sumDy: usize, sumDyX: usize, g: usize, dy: usize, x: usize, center: usize, bits: usize, count: f64,
  first: u32, planes: u32, channels: u32, inner: u32,
): void;

// @ts-ignore: decorator
@external("kernels", "gradientStrips")
export declare function gradientStrips(
  dx: usize, dy: usize, x: usize, terms: usize, rows: u32, width: u32, stride: usize,
): void;

// @ts-ignore: decorator
@external("kernels", "gradientSweep")
export declare function gradientSweep(
  dx: usize, dy: usize, x: usize, terms: usize, rows: u32, width: u32, stride: usize,
): void;

// @ts-ignore: decorator
@external("kernels", "gradientPlanes")
export declare function gradientPlanes(
  dx: usize, dy: usize, x: usize, terms: usize,
  first: u32, planes: u32, channels: u32, inner: u32,
): void;

// @ts-ignore: decorator
@external("kernels", "roundMeans")
export declare function roundMeans(center: usize, mean: usize, n: u32): void;

// @ts-ignore: decorator
@external("kernels", "scaleShift")
export declare function scaleShift(
  terms: usize, mean: usize, meanLow: usize, variance: usize, gamma: usize, beta: usize, epsilon: f64, n: u32,
): u32;

// @ts-ignore: decorator
@external("kernels", "gradientTerms")
export declare function gradientTerms(
  terms: usize, dgamma: usize, dbeta: usize,
  sumDy: usize, sumDyX: usize, mean: usize, variance: usize, gamma: usize,
  epsilon: f64, perValue: f64, n: u32,
): void;
