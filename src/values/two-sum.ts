// Sums in two float64 parts, for means that keep their digits however many parts are pooled.

/** Sets high[c] + low[c] to a + b + rest and loses no digit of a + b (Knuth's two-sum; Dekker 1971). */
export function addTo(
  high: Float64Array,
  low: Float64Array,
  c: number,
  a: number,
  b: number,
  rest: number,
): void {
  const sum = a + b;
  const part = sum - a;
  const lost = a - (sum - part) + (b - part) + rest;
  high[c] = sum + lost;
  low[c] = lost - (high[c]! - sum);
}
