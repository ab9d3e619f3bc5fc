// Arrays between guard values. The guards are NaN of a pattern of their own: writing past an end
// changes them, and a result that depends on what lies past an end is NaN.

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

/** True if all of an array are guard values. */
export const isGuarded = (array: Float32Array): boolean =>
  bitsOf(array).every((bits) => bits === GUARD);

export interface Guarded {
  readonly array: Float32Array;
  /** Throws if something wrote past an end. */
  assertIntact(): void;
}

/** How many values `within` takes from its memory for `length` values of an array. */
export const withGuards = (length: number): number => length + 2 * MARGIN + 3;

/**
 * `length` values within `memory`, between guard values, themselves guard values at first; at an
 * address that is 4·lead past a multiple of 16, from which no vector is aligned for lead = 1, 2, 3.
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

/** `length` values in an ordinary array, between guards. */
export const guarded = (length: number, lead = 1): Guarded =>
  within(new Float32Array(withGuards(length)), length, lead);

/** `values` in an ordinary array, between guards. */
export function guardedCopy(values: Float32Array, lead = 1): Guarded {
  const copy = guarded(values.length, lead);
  copy.array.set(values);
  return copy;
}
