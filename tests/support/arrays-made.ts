// Counts the arrays that a call makes: for a few channels, making them takes longer than all else.

/** How many arrays of floats a call makes, by `new` or by methods such as `map`, other than views of what there is. */
export function arraysMadeBy(call: () => unknown): number {
  let made = 0;
  const own = [Float32Array, Float64Array] as const;
  const counted = <Kind extends Float32ArrayConstructor | Float64ArrayConstructor>(kind: Kind) =>
    new Proxy(kind, {
      construct(target, of, asked) {
        const array = Reflect.construct(target, of, asked);
        if (array.buffer !== of[0]) made++;
        return array;
      },
    });
  const put = (kinds: typeof own): void => {
    [globalThis.Float32Array, globalThis.Float64Array] = kinds;
    // Methods such as `map` find there what they make.
    for (const [i, kind] of own.entries()) kind.prototype.constructor = kinds[i]!;
  };
  put([counted(own[0]), counted(own[1])]);
  try {
    call();
  } finally {
    put(own);
  }
  return made;
}
