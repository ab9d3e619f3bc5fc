// Arrays with guard values before and behind them. A guard is a NaN with unusual bits. Code that writes past an end
// changes it, and a result that depends on values past an end becomes NaN.

/** A quiet NaN that no arithmetic makes. */
export const GUARD = 0x7fcabcde;

const MARGIN = 71;

/** The float32 bits of an array. */
export const bitsOf = (array: Float32Array): Uint32Array =>
  new Uint32Array(array.buffer, array.byteOffset, array.length);

/** Fills an array with guard values. */
export const fillGuards = (array: Float32Array): Float32Array => {
  bitsOf(array).fill(GUARD);
  return array;
};

/** True if every value of an array is a guard value. */
export const isGuarded = (array: Float32Array): boolean =>
  bitsOf(array).every((bits) => bits === GUARD);

export interface Guarded {
  readonly array: Float32Array;
  /** Throws if something wrote past an end. */
  assertIntact(): void;
}

/** How many values of `memory` an array of `length` values takes in `within`. */
export const withGuards = (length: number): number => length + 2 * MARGIN + 3;

/**
 * An array of `length` values within `memory`, between guard values. At first, its own values are guard values too.
 * It begins 4·lead bytes past a multiple of 16, so for lead = 1, 2 or 3 no vector of it is aligned.
 */
export function within(memory: Float32Array, length: number, lead: number): Guarded {
  fillGuards(memory);
  const start = MARGIN + ((4 + lead - (((memory.byteOffset >> 2) + MARGIN) & 3)) & 3);
  const array = memory.subarray(start, start + length);
  const before = memory.subarray(0, start);
  const after = memory.subarray(start + length);
  return {
    array,
    assertIntact() {
      if (!isGuarded(before)) throw new Error("values before the array were overwritten");
      if (!isGuarded(after)) throw new Error("values behind the array were overwritten");
    },
  };
}

/** The same in an ordinary array, which is made for it. */
export const guarded = (length: number, lead = 1): Guarded =>
  within(new Float32Array(withGuards(length)), length, lead);

/** A copy of `values` in such an array. */
export function guardedCopy(values: Float32Array, lead = 1): Guarded {
  const copy = guarded(values.length, lead);
  copy.array.set(values);
  return copy;
}
