// One hash over the bits of all results, any NaN counting as any NaN: two runtimes that agree in it
// computed the same.

// Edge runtimes on Node have a proxy for Number, which is asked at each use of a property.
const { isNaN: isNan } = Number;

/** MurmurHash3's mixing of a word (Austin Appleby, public domain), twice, by different constants. */
export class Digest {
  #high = 0;
  #low = 0;
  #words = 0;

  #word(word: number): void {
    this.#words++;
    this.#high = mix(this.#high, Math.imul(word, 0xcc9e2d51), 0x1b873593);
    this.#low = mix(this.#low, Math.imul(word, 0x239b961b), 0xab0e9789);
  }

  /** Takes in numbers, by their bits, or a text. */
  add(values: Float32Array | Float64Array | string | number): void {
    if (typeof values === "number") {
      this.add(Float64Array.of(values));
    } else if (typeof values === "string") {
      this.#word(values.length);
      for (let i = 0; i < values.length; i++) this.#word(values.charCodeAt(i));
    } else {
      this.#word(values.length);
      const words = new Uint32Array(values.buffer, values.byteOffset, values.byteLength / 4);
      const each = values.BYTES_PER_ELEMENT / 4;
      for (let i = 0; i < values.length; i++) {
        const nan = isNan(values[i]);
        for (let k = 0; k < each; k++) this.#word(nan ? 0x7fc00000 : words[i * each + k]!);
      }
    }
  }

  /** 16 hexadecimal digits. */
  toString(): string {
    const hex = (word: number): string => finish(word).toString(16).padStart(8, "0");
    return hex(this.#high ^ this.#words) + hex(this.#low ^ this.#words);
  }
}

const rotate = (word: number, by: number): number => (word << by) | (word >>> (32 - by));

const mix = (state: number, word: number, factor: number): number =>
  (Math.imul(rotate(state ^ Math.imul(rotate(word, 15), factor), 13), 5) + 0xe6546b64) | 0;

function finish(state: number): number {
  let h = state;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
