// Ways to damage files, each from a seed: bytes changed, moved, cut, and JSON with other values.

export type Random = () => number;

export const pick = <T>(next: Random, from: readonly T[]): T =>
  from[Math.floor(next() * from.length)]!;
export const upTo = (next: Random, limit: number): number => Math.floor(next() * limit);

// ---- bytes ------------------------------------------------------------------------------------

const cut: Mutation = (bytes, next) => bytes.slice(0, upTo(next, bytes.length));

const grow: Mutation = (bytes, next) => {
  const longer = new Uint8Array(bytes.length + upTo(next, next() < 0.01 ? 1 << 20 : 100));
  longer.fill(pick(next, [0, 0x5b, 0x7b, 0x0a, 255])).set(bytes);
  return longer;
};

const flip: Mutation = (bytes, next) => {
  const changed = bytes.slice();
  for (let i = 1 + upTo(next, 8); i > 0 && bytes.length > 0; i--) {
    changed[upTo(next, bytes.length)]! ^= 1 << upTo(next, 8);
  }
  return changed;
};

const overwrite: Mutation = (bytes, next) => {
  const changed = bytes.slice();
  const at = upTo(next, bytes.length);
  const value = pick<number | null>(next, [0, 255, 127, 128, null]);
  const end = Math.min(bytes.length, at + 1 + upTo(next, 12));
  for (let i = at; i < end; i++) changed[i] = value ?? upTo(next, 256);
  return changed;
};

/** Some bytes, copied to where others were: numbers, lengths and names change places. */
const move: Mutation = (bytes, next) => {
  const changed = bytes.slice();
  const from = upTo(next, bytes.length);
  changed.copyWithin(upTo(next, bytes.length), from, from + 1 + upTo(next, 40));
  return changed;
};

const leaveOut: Mutation = (bytes, next) => {
  const at = upTo(next, bytes.length);
  const end = at + 1 + upTo(next, 40);
  return Uint8Array.from([...bytes.subarray(0, at), ...bytes.subarray(end)]);
};

export type Mutation = (bytes: Uint8Array, next: Random) => Uint8Array;
export const BYTES: readonly Mutation[] = [
  cut,
  grow,
  flip,
  flip,
  overwrite,
  overwrite,
  move,
  leaveOut,
];

// ---- JSON -------------------------------------------------------------------------------------

const NUMBERS = [
  0,
  1,
  -1,
  2,
  3,
  5,
  0.5,
  1e9,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  2 ** 60,
  1e300,
  -(2 ** 53),
];
const TEXTS = [
  "",
  "F32",
  "F64",
  "F16",
  "BF16",
  "I64",
  "F8_E4M3",
  "U9",
  "float32",
  "uint8",
  "string",
];
const OTHERS = [null, true, [], {}, [[]], "__proto__", [1, 2], { a: 1 }];

/** JSON in which one or some values are others: another number, type, order, or missing. */
export function otherJson(json: unknown, next: Random): unknown {
  const copy = structuredClone(json);
  for (let times = 1 + upTo(next, 3); times > 0; times--) {
    let [holder, key]: [Record<string, unknown> | null, string] = [null, ""];
    let value: unknown = copy;
    while (typeof value === "object" && value !== null && Object.keys(value).length > 0) {
      if (holder !== null && next() < 0.15) break;
      holder = value as Record<string, unknown>;
      key = pick(next, Object.keys(holder));
      value = holder[key];
    }
    if (holder === null) return copy;
    const what = next();
    if (what < 0.15) delete holder[key];
    else if (what < 0.3)
      holder[key] = structuredClone(pick(next, OTHERS)); // which later ones may change
    else if (what < 0.4) holder[pick(next, Object.keys(holder))] = value;
    else if (typeof value === "number") {
      holder[key] = next() < 0.5 ? pick(next, NUMBERS) : value + upTo(next, 9) - 4;
    } else if (typeof value === "string") holder[key] = pick(next, TEXTS);
    else holder[key] = pick<unknown>(next, [...NUMBERS, ...TEXTS]);
  }
  return copy;
}

/** Text with an array in it that nests deeper than calls do, or is long. */
export function deepJson(text: string, next: Random): string {
  const depth = 10 ** (next() < 0.03 ? 5 : upTo(next, 5));
  const deep = next() < 0.5 ? "[".repeat(depth) + "]".repeat(depth) : `[${"[],".repeat(depth)}0]`;
  const numbers = [...text.matchAll(/\d+|"[^"]*"/g)];
  const { index, 0: found } = pick(next, numbers);
  return text.slice(0, index) + deep + text.slice(index + found.length);
}
