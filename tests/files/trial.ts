// One thing to try on one file.

export interface Trial {
  /** What is tried, after the format and the file. */
  readonly name: string;
  /** Says what was found, for people; throws if that is wrong. */
  readonly run: () => Promise<string>;
}

/** Throws unless something holds. */
export function check(holds: boolean, what: () => string): asserts holds {
  if (!holds) throw new Error(what());
}

/** The largest difference of two arrays, relative to the largest value of the first. */
export function relativeDifference(expected: ArrayLike<number>, actual: ArrayLike<number>): number {
  check(expected.length === actual.length, () => `${expected.length} and ${actual.length} values`);
  let [difference, largest] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(expected[i]! - actual[i]!));
    largest = Math.max(largest, Math.abs(expected[i]!));
  }
  return difference / largest;
}
