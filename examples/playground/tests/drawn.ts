/** How people draw the digits: strokes through a few points, in a square of side 1, y downwards. */

import type { Point, Stroke } from "../src/strokes.js";

type Pairs = readonly (readonly [number, number])[];

const curve = (pairs: Pairs): Stroke => smooth(pairs.map(([x, y]) => ({ x, y })));

/** Catmull-Rom: a smooth curve through the points. */
function smooth(points: readonly Point[]): Stroke {
  const at = (i: number): Point => points[Math.min(points.length - 1, Math.max(0, i))];
  const parts = points.slice(1).flatMap((_, i) =>
    Array.from({ length: 8 }, (_, k) => {
      const t = k / 8;
      const on = (axis: "x" | "y"): number => {
        const [a, b, c, d] = [at(i - 1), at(i), at(i + 1), at(i + 2)].map((p) => p[axis]);
        const linear = c - a;
        const square = 2 * a - 5 * b + 4 * c - d;
        const cube = 3 * b - a - 3 * c + d;
        return b + 0.5 * t * (linear + t * (square + t * cube));
      };
      return { x: on("x"), y: on("y") };
    }),
  );
  return [...parts, at(points.length - 1)];
}

// biome-ignore format: one stroke a line
const SHAPES: readonly (readonly Pairs[])[] = [
  [[[0.55, 0.15], [0.35, 0.22], [0.25, 0.5], [0.35, 0.8], [0.52, 0.86], [0.7, 0.75], [0.76, 0.5], [0.68, 0.22], [0.55, 0.15]]],
  [[[0.53, 0.13], [0.51, 0.35], [0.49, 0.6], [0.47, 0.87]]],
  [[[0.28, 0.3], [0.38, 0.17], [0.56, 0.15], [0.68, 0.28], [0.62, 0.46], [0.45, 0.65], [0.27, 0.84], [0.28, 0.84], [0.5, 0.83], [0.75, 0.82]]],
  [[[0.3, 0.2], [0.48, 0.13], [0.66, 0.24], [0.6, 0.42], [0.46, 0.48], [0.46, 0.48], [0.64, 0.54], [0.7, 0.7], [0.58, 0.85], [0.4, 0.87], [0.27, 0.78]]],
  [[[0.3, 0.15], [0.26, 0.35], [0.27, 0.52], [0.27, 0.52], [0.5, 0.53], [0.74, 0.5]], [[0.68, 0.15], [0.66, 0.5], [0.64, 0.87]]],
  [[[0.7, 0.15], [0.52, 0.16], [0.35, 0.17], [0.35, 0.17], [0.32, 0.32], [0.31, 0.45], [0.31, 0.45], [0.48, 0.41], [0.65, 0.48], [0.69, 0.65], [0.6, 0.82], [0.42, 0.87], [0.27, 0.8]]],
  [[[0.62, 0.13], [0.42, 0.3], [0.32, 0.55], [0.35, 0.78], [0.5, 0.87], [0.66, 0.78], [0.67, 0.62], [0.54, 0.53], [0.4, 0.6], [0.34, 0.7]]],
  [[[0.27, 0.18], [0.5, 0.17], [0.73, 0.16], [0.73, 0.16], [0.63, 0.38], [0.53, 0.6], [0.45, 0.87]]],
  [[[0.66, 0.22], [0.5, 0.13], [0.36, 0.22], [0.4, 0.38], [0.55, 0.5], [0.67, 0.66], [0.62, 0.82], [0.48, 0.87], [0.34, 0.78], [0.36, 0.62], [0.52, 0.48], [0.65, 0.36], [0.66, 0.22]]],
  [[[0.66, 0.25], [0.52, 0.14], [0.36, 0.24], [0.35, 0.42], [0.5, 0.5], [0.64, 0.4], [0.67, 0.24], [0.67, 0.24], [0.65, 0.5], [0.6, 0.7], [0.55, 0.87]]],
];

/** The strokes of each digit, 0 to 9. */
export const DRAWN: readonly (readonly Stroke[])[] = SHAPES.map((shape) => shape.map(curve));
