// The value in the middle, which a few slow ones do not move.

/** The value that half of the values do not reach; of an even number of them, the larger of the two in the middle. */
export const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1];
