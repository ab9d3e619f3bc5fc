// The bounds that docs/guides/exactness.md proves for any data, on data that were built to be bad: columns that a
// search found (tests/golden/climbed-columns.json), and what a search finds here (tests/support/climb.ts).

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { type Column, climb, type Errors, errorsOf, type Walk } from "./support/climb.js";
import {
  DX_FAR_ERROR,
  dxBound,
  VARIANCE_ERROR,
  Y_BOUND,
  Y_ERROR,
  Y_INFER_BOUND,
} from "./support/limits.js";
import { FACTOR, SEED } from "./support/property.js";

interface Golden {
  layout: "NC" | "NCL";
  m: number;
  gamma?: number;
  beta?: number;
  column: string;
  dy?: string;
}

const golden: Record<"planes" | "rows" | "dx", Golden> = JSON.parse(
  readFileSync(new URL("golden/climbed-columns.json", import.meta.url), "utf8"),
);

const floatsOf = (text: string): Float32Array =>
  new Float32Array(Uint8Array.from(Buffer.from(text, "base64")).buffer);

function columnOf({ m, gamma = 1, beta = 0, column, dy }: Golden): Column {
  const slopes = dy === undefined ? new Float32Array(m).fill(1) : floatsOf(dy);
  return { x: floatsOf(column), dy: slopes, gamma, beta };
}

const walkOf = ({ layout }: Golden): Walk => (layout === "NC" ? "rows" : "planes");

function assertBounds({ variance, y, infer, dx, product }: Errors): void {
  expect(variance).toBeLessThan(VARIANCE_ERROR);
  expect(y).toBeLessThan(Y_BOUND);
  expect(infer).toBeLessThan(Y_INFER_BOUND);
  expect(dx).toBeLessThan(dxBound(product));
}

describe("columns that a search found", () => {
  test.each([
    // What is off, and by how much: more than on data that nobody built.
    ["planes", "y", 5.5e-7],
    ["rows", "y", 5e-7],
    ["dx", "dx", 1.4e-6],
  ] as const)("%s: %s is off by %f", (name, what, least) => {
    const given = golden[name];
    // In rows, a tensor has to be wide, or its rows are taken several at once.
    const wide = walkOf(given) === "rows" ? 1024 : 3;
    const column = columnOf(given);
    const all = errorsOf(
      walkOf(given),
      Array.from({ length: wide }, () => column),
    );
    for (const errors of all) {
      assertBounds(errors);
      expect(errors[what]).toBeGreaterThan(least);
    }
    if (name === "dx") expect(all[0]!.dx).toBeLessThan(DX_FAR_ERROR);
  });
});

/** What rounding errors alone do not reach, however they fall: the climb has to do better than chance. */
const CHANCE = { rows: 2.4e-7, planes: 2.4e-7 };

describe.each(["rows", "planes"] as const)("climbing, in %s", (walk) => {
  test.each([24, 64, 128, 200])("of %i values: variance, y of train and of infer, dx", (m) => {
    const rounds = 40 * FACTOR;
    const seed = SEED + m;
    const start = climb(walk, m, seed, rounds, ({ variance }) => variance);
    assertBounds(start.errors);
    if (m >= 64) expect(start.errors.variance).toBeGreaterThan(CHANCE[walk]);
    const toY = climb(walk, m, seed, rounds, ({ y }) => y, start.column);
    assertBounds(toY.errors);
    expect(toY.errors.y).toBeGreaterThanOrEqual(start.errors.y);
    assertBounds(climb(walk, m, seed, rounds, ({ infer }) => infer, start.column).errors);
    const toDx = climb(walk, m, seed, rounds, ({ dx }) => dx, start.column);
    assertBounds(toDx.errors);
    const toShare = climb(
      walk,
      m,
      seed,
      rounds,
      ({ dx, product }) => dx / dxBound(product),
      toDx.column,
    );
    assertBounds(toShare.errors);
  });

  test("on from a column that a search found: y, dx", () => {
    const column = columnOf(golden[walk]);
    const begin = { ...column, dy: column.x.map((v) => (Math.abs(v) > 1 ? -1 : 1)) };
    const rounds = (walk === "planes" ? 2 : 25) * FACTOR;
    const toY = climb(walk, column.x.length, SEED, rounds, ({ y }) => y, begin);
    assertBounds(toY.errors);
    expect(toY.errors.y).toBeGreaterThan(Y_ERROR);
    assertBounds(climb(walk, column.x.length, SEED, rounds, ({ dx }) => dx, begin).errors);
  });
});
