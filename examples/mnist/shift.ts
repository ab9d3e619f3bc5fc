/** A shift of the digits: what the network was not trained on. */

import type { Digits } from "./digits.js";
import { Random } from "./random.js";

/** Grey for black, a grey ground, and noise: what another camera in poor light would see. */
export const SHIFT = { contrast: 0.4, ground: 60, noise: 25 } as const;

/**
 * The same digits, shifted.
 *
 * @param strength 1: as `SHIFT` says; 0: not at all; in between, in proportion
 */
export function shift(digits: Digits, seed: number, strength = 1): Digits {
  const random = new Random(seed);
  const contrast = 1 - strength * (1 - SHIFT.contrast);
  const ground = strength * SHIFT.ground;
  const noise = strength * SHIFT.noise;
  const images = digits.images.map((grey) => {
    const value = contrast * grey + ground + noise * random.normal();
    return Math.min(255, Math.max(0, Math.round(value)));
  });
  return { ...digits, images };
}
