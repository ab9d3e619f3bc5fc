// What bench/ uses of @jax-js/jax. `npm run types` checks bench/ against this, so that it needs nothing installed;
// `npm run types --prefix bench`, after npm ci there, against the packages themselves.

export declare namespace numpy {
  /** Counts its references: an operation uses up its operands, `ref` is one more of the same. */
  interface Array {
    readonly ref: Array;
    reshape(shape: readonly number[]): Array;
    add(other: Array | number): Array;
    sub(other: Array): Array;
    mul(other: Array): Array;
    div(other: Array): Array;
    dataSync(): ArrayBufferView;
    dispose(): void;
  }
  function array(values: Float32Array<ArrayBuffer>): Array;
  function mean(x: Array, axes: number[], options: { keepdims: boolean }): Array;
  function square(x: Array): Array;
  function sqrt(x: Array): Array;
}

export declare function init(device: "wasm"): Promise<unknown>;
export declare function defaultDevice(device: "wasm"): void;
export declare function jit<Args extends unknown[], Result>(
  f: (...args: Args) => Result,
): ((...args: Args) => Result) & { dispose(): void };
export declare function vjp(
  f: (...args: numpy.Array[]) => numpy.Array,
  primals: numpy.Array[],
): [value: numpy.Array, back: (dy: numpy.Array) => unknown];
