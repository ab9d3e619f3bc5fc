// The moments of channels whose deviations are so small that their squares are lost: the kernels square in float32,
// where nothing is between 0 and 2^-149. Such a channel is taken again here, in float64, which can square every
// float32. The first value x₀ is subtracted from all: with S = Σ(x - x₀), the mean is x₀ + S/m, and m2 is
// Σ(x - x₀)² - S²/m (Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", eq. 1.3 on shifted
// data). That cancels at most m-fold, since (x₀ - mean)² is at most m2. Both sums are carried in two parts: where each
// addition rounds alike, a sum in one part would be off by m times its rounding, and m2 by m² times it.

import { countOf } from "../values/layout.js";
import { placeIn } from "../values/mask.js";
import { addTo } from "../values/two-sum.js";
import type { Machine } from "./machine.js";
import type { Pass } from "./plan.js";

/**
 * Below this, 2^-120, a variance from the kernels may be off by more than 2^-28 of itself, because squares and their
 * sums are each off by up to 2^-150.
 */
const LEAST = 7.52316384526264e-37;
/** Float32 near one of at least this size, 2^-40, are so far apart that the squares of their distances are not lost. */
const COARSE = 9.094947017729282e-13;
/** Below this, 2^-256, 1/√variance is beyond float32. */
const LEAST_FOR_SCALE = 8.636168555094445e-78;

/**
 * Takes those channels of a tile again whose moments, which lie in kernel memory, may have lost digits by underflow.
 * `epsilon` is what will be added to the variances, NaN if they will not normalize: beside a large one nothing has
 * to be done. Where 1/√(variance + epsilon) is beyond float32, the variance becomes infinite. Returns whether it
 * has looked at the channels.
 */
export function mend(
  { a, view, selection, machine }: Pass<Machine>,
  epsilon: number,
  first: number,
  n: number,
): boolean {
  if (epsilon >= LEAST) return false;
  const { mean, meanLow, variance, m2 } = machine.memory.slots;
  const { full } = selection ?? { full: view };
  const m = countOf(view);
  for (let c = 0; c < n; c++) {
    const v = variance.array[c]!;
    if (!(v < LEAST) || (v === 0 && Math.abs(mean.array[c]!) >= COARSE)) continue;
    const valueAt = (i: number): number =>
      a.array[placeIn(selection, view, i) + (first + c) * full.inner]!;
    const from = valueAt(0);
    // Of the deviations, and of their squares.
    const sum = new Float64Array(2);
    const low = new Float64Array(2);
    for (let i = 0; i < m; i++) {
      const apart = valueAt(i) - from;
      // Most values of a channel of zeros add nothing, and are passed over quickly.
      if (apart === 0) continue;
      addTo(sum, low, 0, sum[0]!, apart, low[0]!);
      addTo(sum, low, 1, sum[1]!, apart * apart, low[1]!);
    }
    const squares = sum[1]! - (sum[0]! * sum[0]!) / m;
    addTo(mean.array, meanLow.array, c, from, sum[0]! / m, 0);
    m2.array[c] = squares;
    variance.array[c] = squares && squares / m + epsilon < LEAST_FOR_SCALE ? Infinity : squares / m;
  }
  return true;
}
