// The terms of a frozen layer, once per channel: the same formula, bit for bit, as `scaleShift` of assembly/channel.ts,
// in JavaScript. A layer can be frozen so before any kernels have been started, and from moments without a layer.

import { type AffineTerms, checkVariances, type Normalizer } from "../values/terms.js";

const MOST = 2 ** 128 - 2 ** 104;

/**
 * Turns y = γ·(x - mean)/√(variance + ε) + β into y = (x - center)·scale + shift (Ioffe & Szegedy 2015, algorithm 2,
 * line 11). Throws StateError for an invalid variance.
 */
export function termsOf(normalizer: Normalizer): AffineTerms {
  const { mean, meanLow, variance, gamma, beta, epsilon, limits } = normalizer;
  checkVariances(variance);
  const center = Float32Array.from(mean);
  const scale = new Float32Array(mean.length);
  const shift = new Float32Array(mean.length);
  for (let c = 0; c < mean.length; c++) {
    const square = variance[c]! + epsilon;
    // A channel without any spread gives beta.
    const inverse = square === 0 ? 0 : 1 / Math.sqrt(square);
    // An infinite scale times x - mean = 0 would be NaN.
    const s = Math.max(-MOST, Math.min(MOST, inverse * (gamma?.[c] ?? 1)));
    scale[c] = s;
    shift[c] = (beta?.[c] ?? 0) - (mean[c]! - center[c]! + (meanLow?.[c] ?? 0)) * s;
  }
  return { limits, center, scale, shift };
}
