import type { Digits } from "./data.js";
import { Random } from "./random.js";

/** Grey for black, a grey ground, and noise: what another camera in poor light would see. */
export const SHIFT = { contrast: 0.4, ground: 60, noise: 25 } as const;

/** The same digits, shifted. */
export function shift(digits: Digits, seed: number): Digits {
  const random = new Random(seed);
  const { contrast, ground, noise } = SHIFT;
  const images = digits.images.map((grey) => {
    const value = contrast * grey + ground + noise * random.normal();
    return Math.min(255, Math.max(0, Math.round(value)));
  });
  return { ...digits, images };
}
