// All kinds of memory in which the data of a call may lie. Results must not depend on which it is.

import { runInNewContext } from "node:vm";
import { Kernels } from "batchnorm-wasm";
import { guarded, withGuards, within } from "./guards.js";

export const PLACES = [
  "ordinary", // an array of its own
  "offset", // part of a larger array, at an odd address
  "shared", // part of a SharedArrayBuffer, at an odd address
  "foreign", // made by another realm
  "tensor", // in the layer's kernel memory
  "part", // part of such a tensor, at an odd address
  "elsewhere", // in the memory of kernels other than the layer's
] as const;
export type Place = (typeof PLACES)[number];

export interface Placed {
  readonly array: Float32Array;
  /** Throws if something wrote past an end. */
  assertIntact(): void;
  free(): void;
}

const others = new Kernels();

const nothing = (): void => {};

/** An array of `length` values in a place. */
export function room(place: Place, kernels: Kernels, length: number, lead = 1): Placed {
  switch (place) {
    case "ordinary":
      return { array: new Float32Array(length), assertIntact: nothing, free: nothing };
    case "offset":
      return { ...guarded(length, lead), free: nothing };
    case "shared": {
      const memory = new Float32Array(new SharedArrayBuffer(4 * withGuards(length)));
      return { ...within(memory, length, lead), free: nothing };
    }
    case "foreign": {
      const array = runInNewContext("new Float32Array(length)", { length }) as Float32Array;
      return { array, assertIntact: nothing, free: nothing };
    }
    case "tensor":
    case "elsewhere": {
      const owner = place === "tensor" ? kernels : others;
      const array = owner.alloc(length);
      return { array, assertIntact: nothing, free: () => owner.free(array) };
    }
    case "part": {
      const memory = kernels.alloc(withGuards(length));
      return { ...within(memory, length, lead), free: () => kernels.free(memory) };
    }
  }
}

/** A copy of `values` in a place. */
export function put(place: Place, kernels: Kernels, values: Float32Array, lead = 1): Placed {
  const placed = room(place, kernels, values.length, lead);
  placed.array.set(values);
  return placed;
}

/** Puts arrays in places, until `free` gives back the memory of all of them. */
export class Placing {
  readonly #kernels: Kernels;
  readonly #placed: Placed[] = [];

  constructor(kernels: Kernels) {
    this.#kernels = kernels;
  }

  put(place: Place, values: Float32Array): Float32Array {
    const placed = put(place, this.#kernels, values);
    this.#placed.push(placed);
    return placed.array;
  }

  free(): void {
    for (const { free } of this.#placed) free();
  }
}
