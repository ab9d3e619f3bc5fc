// How properties are run: with one seed, so that a run in CI says the same as one at a desk.
// Another search: FC_SEED=7 FC_RUNS=10 npx vitest run (FC_RUNS multiplies the number of runs).

import fc from "fast-check";

const SEED = Number(process.env.FC_SEED ?? 20150211);
const FACTOR = Number(process.env.FC_RUNS ?? 1);

/** Throws with the smallest counterexample found among `runs` cases. */
export function check<T extends [unknown, ...unknown[]]>(
  property: fc.IProperty<T>,
  runs: number,
): void {
  fc.assert(property, { seed: SEED, numRuns: runs * FACTOR });
}
