// Runs property tests. The seed is fixed, so that a run in CI tries the same cases as one at a desk. To try others:
// FC_SEED=7 FC_RUNS=10 npx vitest run (FC_RUNS multiplies the number of cases).

import fc from "fast-check";

export const SEED = Number(process.env.FC_SEED ?? 20150211);
export const FACTOR = Number(process.env.FC_RUNS ?? 1);

/** Tries `runs` cases, and throws the smallest counterexample that it finds. */
export function check<T extends [unknown, ...unknown[]]>(
  property: fc.IProperty<T>,
  runs: number,
): void {
  fc.assert(property, { seed: SEED, numRuns: runs * FACTOR });
}
