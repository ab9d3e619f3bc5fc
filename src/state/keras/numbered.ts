// Finds the weights of norms whose names TensorFlow has made unique by numbers. If a layer of one's own builds two norms
// itself, both have the names `block/gamma`, `block/moving_mean` and so on, and the second gets `block/gamma_1`,
// `block/moving_mean_1` (tensorflow/python/framework/ops.py, Graph.unique_name).

import { StateError } from "../../errors.js";

/** Matches the end of a name: the number that makes it unique, and TensorFlow's number of an output. */
const END = /(_\d+)?(:\d+)?$/;

/** A name of a weight without its end. */
const stemOf = (name: string): string => name.replace(END, "");

/** The names that are the same but for their ends. */
interface Same {
  readonly names: readonly string[];
  /** Their ends, as one text. */
  readonly ends: string;
}

/** The names of weights, by what they are without their ends. */
export class Numbered {
  readonly #stems = new Map<string, Same>();

  constructor(names: Iterable<string>) {
    const stems = new Map<string, string[]>();
    for (const name of names) {
      const stem = stemOf(name);
      const same = stems.get(stem);
      if (same) same.push(name);
      else stems.set(stem, [name]);
    }
    for (const [stem, same] of stems) {
      const ends = same.map((name) => name.slice(stem.length));
      this.#stems.set(stem, { names: same, ends: ends.sort().join() });
    }
  }

  /** True if there is a weight of this name, whatever its end. */
  has(stem: string): boolean {
    return this.#stems.has(stem);
  }

  /** The number of a mean, as text. It is "" if the mean has none, or is the only one of its name. */
  numberOf(mean: string): string {
    const { names } = this.#stems.get(stemOf(mean))!;
    return names.length === 1 ? "" : (/_(\d+)(?::\d+)?$/.exec(mean)?.[1] ?? "");
  }

  /**
   * The full name of a weight of the norm that has this mean; `null` if there is no weight of the name.
   *
   * @param stem the name of the weight without its end.
   * @throws StateError if it cannot be told which weight belongs to which mean. Weights of the same number belong together
   * only if all norms of the name have the weight: otherwise the first `gamma` may be that of the second norm.
   */
  beside(mean: string, stem: string): string | null {
    const found = this.#stems.get(stem);
    if (found === undefined) return null;
    const own = stemOf(mean);
    const means = this.#stems.get(own)!;
    if (found.ends === means.ends) return stem + mean.slice(own.length);
    if (found.names.length === 1 && means.names.length === 1) return found.names[0]!;
    throw new StateError(
      mean,
      `a "${stem}" of the same number for each "${own}", or none`,
      found.names
        .slice(0, 5)
        .map((name) => `"${name}"`)
        .join(", "),
    );
  }
}
