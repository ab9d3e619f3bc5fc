// Checks with a name each, counted, and the digest of what they computed.

import type { BatchNorm } from "batchnorm-wasm";
import { Digest } from "./digest.js";

/** What a run of the suite comes to. */
export interface Outcome {
  readonly checks: number;
  /** Name and message of each check that failed. */
  readonly failures: readonly string[];
  /** Of the bits of all results. */
  readonly hash: string;
  /** Of the texts: errors, diagnoses, JSON. */
  readonly texts: string;
  /** How many checks there were in the first sections, those that were there before others came, and their hash. */
  readonly first: { readonly checks: number; readonly hash: string };
}

export class Checks {
  readonly #failures: string[] = [];
  readonly #digest = new Digest();
  readonly #texts = new Digest();
  #count = 0;

  /** Results, into the digest. */
  record(...results: readonly (Float32Array | Float64Array | number | null)[]): void {
    for (const result of results) if (result !== null) this.#digest.add(result);
  }

  /** A text, into a digest of its own: it may change where no result does. */
  say(text: string): void {
    this.#texts.add(text);
  }

  /** One check: fails if `body` throws. */
  check(name: string, body: () => void): void {
    this.#count++;
    try {
      body();
    } catch (error) {
      this.#failed(name, error);
    }
  }

  /** The same for what takes time. */
  async wait(name: string, body: () => Promise<void>): Promise<void> {
    this.#count++;
    try {
      await body();
    } catch (error) {
      this.#failed(name, error);
    }
  }

  /**
   * One check that a call is refused with an error of this class and code, and has changed nothing
   * of the layer.
   */
  refuses(
    name: string,
    kind: { readonly name: string; readonly prototype: Error },
    code: string,
    call: () => unknown,
    layer?: BatchNorm,
  ): void {
    this.check(name, () => {
      const before = JSON.stringify(layer);
      let error: unknown;
      try {
        call();
      } catch (thrown) {
        error = thrown;
      }
      expect(error !== undefined, "an error", "none");
      const { name: found, message, code: given } = error as Error & { code: unknown };
      expect(Object.prototype.isPrototypeOf.call(kind.prototype, error as Error), kind.name, found);
      expect(given === code, code, given);
      expect(before === JSON.stringify(layer), "an unchanged layer", "a changed one");
      this.say(`${code} ${message}`);
    });
  }

  #failed(name: string, error: unknown): void {
    this.#failures.push(`${name}: ${error instanceof Error ? error.message : String(error)}`);
  }

  /** How many there were so far. */
  get checks(): number {
    return this.#count;
  }

  /** Over the bits of all results so far. */
  get hash(): string {
    return this.#digest.toString();
  }

  get outcome(): Omit<Outcome, "first"> {
    return {
      checks: this.checks,
      failures: this.#failures,
      hash: this.hash,
      texts: this.#texts.toString(),
    };
  }
}

/** Throws unless `holds`. */
export function expect(holds: boolean, expected: unknown, got: unknown): void {
  if (!holds) throw new Error(`expected ${expected}, got ${got}`);
}
