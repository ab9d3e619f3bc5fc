// `backward` in planes on several threads, which is handed out as a whole where that keeps channels in cache.

import { loadChannels, storeChannels } from "../engine/channel.js";
import type { Machine } from "../engine/machine.js";
import { type Operand, pointer, storeHeld } from "../engine/operand.js";
import { channelsNear, type Pass } from "../engine/plan.js";
import { sizeOf } from "../values/layout.js";
import type { Gradients, Normalizer } from "../values/terms.js";
import type { Crew } from "./crew.js";
import { NEAR } from "./job.js";
import { MAX_PIECES } from "./protocol.js";
import { ARRAY, move, type Room } from "./room.js";
import { HEAVY } from "./sizes.js";

/**
 * `backward` in planes, some channels at a time: a piece does both traversals of its channels, so that the second one
 * finds in cache what the first one has read. Returns false, and has done nothing, if that is left to one thread.
 */
export function nearOn(
  crew: Crew,
  room: Room,
  { machine, view, out, b, tile }: Pass<Machine>,
  dy: Operand,
  into: Gradients,
  normalizer: Normalizer,
  perValue: number,
): boolean {
  const { outer, channels, inner } = view;
  const { limits } = normalizer;
  const work = 2 * HEAVY * sizeOf(view);
  const least = normalizer.correction !== null ? 1 : crew.pieces(work, channels);
  if (least === 1) return false;
  const { slots } = machine.memory;
  const each = Math.min(channelsNear(view), tile, Math.ceil(channels / least));
  const dgamma = room.at;
  const dbeta = dgamma + ARRAY;
  // A job has at most MAX_PIECES pieces, and the arrays per channel hold a tile.
  const most = Math.min(tile, MAX_PIECES * each);
  for (let first = 0; first < channels; first += most) {
    const n = Math.min(most, channels - first);
    const pieces = Math.ceil(n / each);
    const at = first * inner;
    const mean = loadChannels(slots.mean, normalizer.mean, first, n);
    const variance = loadChannels(slots.variance, normalizer.variance, first, n);
    const meanLow = loadChannels(slots.meanLow, normalizer.meanLow, first, n);
    const beta = loadChannels(slots.beta, normalizer.beta, first, n);
    crew.job
      .begin(NEAR, pieces, pointer(out, at), pointer(dy, at))
      .on(pointer(b, at), mean, variance, loadChannels(slots.gamma, normalizer.gamma, first, n))
      .of(dgamma, dbeta, each, n)
      .into(channels, inner, outer, meanLow)
      .parts(beta, limits === null ? 0 : 1)
      .numbers(normalizer.epsilon, perValue)
      .limits(limits?.low ?? 0, limits?.high ?? 0);
    crew.run(pieces, out!.base !== dy.base);
    move(room, slots.dgamma.at, dgamma, 4 * n);
    move(room, slots.dbeta.at, dbeta, 4 * n);
    storeChannels(into.dgamma, slots.dgamma, first, n);
    storeChannels(into.dbeta, slots.dbeta, first, n);
  }
  storeHeld(out!);
  return true;
}
