// `backward` in planes on several threads, which is handed out as a whole where that keeps channels in cache.

import { loadChannels, storeChannels } from "../engine/channel.js";
import type { Machine, ThreadExports } from "../engine/machine.js";
import { pointer, storeHeld } from "../engine/operand.js";
import { channelsNear } from "../engine/plan.js";
import { sizeOf } from "../values/layout.js";
import { MAX_PIECES } from "./room.js";
import { HEAVY } from "./sizes.js";

/**
 * `backward` in planes, some channels at a time: a piece does both traversals of its channels, so that the second one
 * finds in cache what the first one has read. Returns false, and has done nothing, if that is left to one thread.
 */
export const nearOn =
  (shared: ThreadExports): NonNullable<Machine["near"]> =>
  ({ machine, view, out, b, tile }, dy, into, normalizer, perValue) => {
    const { outer, channels, inner } = view;
    const { limits } = normalizer;
    const work = 2 * HEAVY * sizeOf(view);
    const least = normalizer.correction !== null ? 1 : shared.pieces(work, channels);
    if (least === 1) return false;
    const { slots } = machine.memory;
    const each = Math.min(channelsNear(view), tile, Math.ceil(channels / least));
    // A job has at most MAX_PIECES pieces, and the arrays per channel hold a tile.
    const most = Math.min(tile, MAX_PIECES * each);
    for (let first = 0; first < channels; first += most) {
      const n = Math.min(most, channels - first);
      const at = first * inner;
      shared.backward(
        pointer(out, at),
        pointer(dy, at),
        pointer(b, at),
        loadChannels(slots.mean, normalizer.mean, first, n),
        loadChannels(slots.meanLow, normalizer.meanLow, first, n),
        loadChannels(slots.variance, normalizer.variance, first, n),
        loadChannels(slots.gamma, normalizer.gamma, first, n),
        loadChannels(slots.beta, normalizer.beta, first, n),
        slots.dgamma.at,
        slots.dbeta.at,
        each,
        n,
        channels,
        inner,
        outer,
        normalizer.epsilon,
        perValue,
        limits?.low ?? NaN,
        limits?.high ?? NaN,
      );
      storeChannels(into.dgamma, slots.dgamma, first, n);
      storeChannels(into.dbeta, slots.dbeta, first, n);
    }
    storeHeld(out!);
    return true;
  };
