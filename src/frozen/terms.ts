// The terms of a frozen layer, worked out once, when it is made.

import { type AffineTerms, checkVariances, type Normalizer, writeTerms } from "../values/terms.js";

/**
 * Turns y = γ·(x - mean)/√(variance + ε) + β into y = (x - center)·scale + shift (Ioffe & Szegedy 2015, algorithm 2,
 * line 11). Throws StateError for an invalid variance.
 */
export function termsOf(normalizer: Normalizer): AffineTerms {
  const { variance, limits } = normalizer;
  checkVariances(variance);
  const array = (): Float32Array => new Float32Array(variance.length);
  const terms = { limits, center: array(), scale: array(), shift: array() };
  writeTerms(terms, normalizer, 0, variance.length);
  return terms;
}
