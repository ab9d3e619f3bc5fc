import { expect, test } from "vitest";
import { Random } from "../../mnist/random.js";
import { byRunningAverages, logits } from "../src/network.js";
import { unpackDigits, unpackNetwork } from "../src/packed.js";
import { centreOfMass, type Stroke, toPixels } from "../src/strokes.js";
import { DRAWN } from "./drawn.js";
import { file } from "./files.js";

/** The rows and columns that have ink. */
function box(image: Uint8Array): { width: number; height: number } {
  const at = [...image.keys()].filter((i) => image[i] > 0);
  const columns = at.map((i) => i % 28);
  const rows = at.map((i) => Math.floor(i / 28));
  return {
    width: Math.max(...columns) - Math.min(...columns) + 1,
    height: Math.max(...rows) - Math.min(...rows) + 1,
  };
}

const moved = (strokes: readonly Stroke[], scale: number, dx: number, dy: number): Stroke[] =>
  strokes.map((stroke) => stroke.map(({ x, y }) => ({ x: scale * x + dx, y: scale * y + dy })));

test("no strokes, no ink", () => {
  expect(toPixels([])).toEqual(new Uint8Array(784));
});

test.each([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])("%i is scaled to 20 pixels and centred", (digit) => {
  const image = toPixels(DRAWN[digit]);
  const { width, height } = box(image);
  expect(Math.max(width, height)).toBeGreaterThanOrEqual(20);
  expect(Math.max(width, height)).toBeLessThanOrEqual(22); // edges that half cover a pixel
  const { x, y } = centreOfMass(image);
  expect(Math.abs(x - 14)).toBeLessThan(0.1);
  expect(Math.abs(y - 14)).toBeLessThan(0.1);
});

test("where and how large it was drawn makes no difference", () => {
  const image = toPixels(DRAWN[2]);
  for (const elsewhere of [moved(DRAWN[2], 0.4, 0.05, 0.5), moved(DRAWN[2], 1.3, -0.2, -0.1)]) {
    const other = toPixels(elsewhere);
    expect(Math.max(...other.map((grey, i) => Math.abs(grey - image[i])))).toBeLessThanOrEqual(1);
  }
  // In pixels of a drawing area as well.
  expect(toPixels(moved(DRAWN[2], 280, 0, 0), 280)).toEqual(image);
});

test("a dot stays a dot", () => {
  const image = toPixels([[{ x: 0.9, y: 0.1 }]]);
  const { width, height } = box(image);
  expect([width, height]).toEqual([4, 4]);
  expect(centreOfMass(image)).toEqual({ x: 14, y: 14 });
});

test("as much ink as MNIST's digits have", async () => {
  const heldOut = unpackDigits(await file("held-out"));
  const ink = (images: Uint8Array) => images.reduce((sum, grey) => sum + grey / 255, 0);
  const theirs = ink(heldOut.images) / heldOut.count;
  const ours = DRAWN.reduce((sum, strokes) => sum + ink(toPixels(strokes)), 0) / DRAWN.length;
  expect(Math.abs(ours / theirs - 1)).toBeLessThan(0.05);
});

test("drawn digits are recognized, also slanted, turned, stretched and shaky", async () => {
  const { layers } = unpackNetwork(await file("network"));
  const random = new Random(3);
  const answer = (strokes: readonly Stroke[]): number => {
    const scores = logits(
      layers,
      Float32Array.from(toPixels(strokes), (grey) => grey / 255),
      byRunningAverages,
    );
    return scores.indexOf(Math.max(...scores));
  };
  const another = (strokes: readonly Stroke[]): Stroke[] => {
    const [turn, slant] = [0.12 * random.normal(), 0.15 * random.normal()];
    const [wide, high] = [1 + 0.12 * random.normal(), 1 + 0.12 * random.normal()];
    const shake = (size: number) => size * random.normal();
    return strokes.map((stroke) => {
      const [dx, dy] = [shake(0.01), shake(0.01)];
      return stroke.map(({ x, y }) => {
        const v = high * (y - 0.5);
        const u = wide * (x - 0.5) - slant * v;
        return {
          x: 0.5 + u * Math.cos(turn) - v * Math.sin(turn) + dx + shake(0.003),
          y: 0.5 + u * Math.sin(turn) + v * Math.cos(turn) + dy + shake(0.003),
        };
      });
    });
  };
  DRAWN.forEach((strokes, digit) => {
    expect(answer(strokes)).toBe(digit);
  });
  const tries = 40;
  const right = DRAWN.flatMap((strokes, digit) =>
    Array.from({ length: tries }, () => answer(another(strokes))).filter((a) => a === digit),
  ).length;
  // Measured: all of them.
  expect(right / (10 * tries)).toBeGreaterThan(0.98);
});
