// `npm run bench -- --check`: has a kernel become slower than the committed record says? What is compared is not
// the time of a case but how many times faster it is than the JavaScript loop of the same run, so that a busy
// machine gives the same answer as a quiet one. A case that falls short is measured again before it counts.

import { setTimeout } from "node:timers/promises";
import { CASES, makeData } from "./cases.js";
import { number } from "./goals.js";
import { type Effort, measure } from "./measure.js";
import { PLAIN, RESIDENT } from "./ours.js";
import { JS, QUICK_SIDES } from "./peers/index.js";
import { allRecords, type Measured, type Recorded, readRecord } from "./record.js";

/**
 * Which part of the recorded ratio a case must reach. A kernel that has gone wrong costs a factor of two or more,
 * and that is what this check is to find. Tensors that do not fit into the cache of one core have to reach less:
 * other programs take their share of the bandwidth, from which the JavaScript loop suffers less than the kernels.
 */
const TOLERANCE = { inOwnCache: 0.5, beyond: 0.3 };
/** How many values fit: x and y then are 1 MiB together. */
const OWN_CACHE = 2 ** 17;
/** The same again, if only other kinds of machine have a record, whose caches and memory differ. */
const OTHER_KIND = 0.7;
/** Seconds to wait before the cases that fell short are measured again, with twice the rounds. */
const PAUSES = [3, 10, 20];

export interface Expected {
  readonly from: string;
  readonly share: number;
  readonly ratio: (m: Measured, side: string) => number | null;
}

const SIDES = [RESIDENT, PLAIN];

/** Takes the best bursts, also of large tensors: on a busy machine the median burst shows mostly the others. */
const ratioOf = (m: Measured | undefined, side: string): number | null => {
  const best = (name: string) => m?.timings.find((timing) => timing.side === name)?.time;
  const [ours, loop] = [best(side), best(JS.name)];
  return ours && loop ? loop / ours : null;
};

const same = (a: Measured) => (b: Measured) =>
  a.name === b.name && a.layout === b.layout && a.op === b.op;

export function expectedFor(kind: string): Expected | null {
  const own = readRecord(kind).result;
  if (own) {
    return {
      from: `${kind} of ${own.date.slice(0, 10)}`,
      share: 1,
      ratio: (m, side) => ratioOf(own.cases.find(same(m)), side),
    };
  }
  const others = allRecords().flatMap(({ result }: Recorded) => (result ? [result] : []));
  if (others.length === 0) return null;
  return {
    from: `other kinds of machine (none of this kind, ${kind})`,
    share: OTHER_KIND,
    ratio(m, side) {
      const ratios = others.flatMap(({ cases }) => ratioOf(cases.find(same(m)), side) ?? []);
      return ratios.length > 0 ? Math.min(...ratios) : null;
    },
  };
}

/** Returns a line for each case that fell short each time it was measured. */
export async function regressions(
  expected: Expected,
  measured: readonly Measured[],
  effort: Effort,
  say: (text: string) => void,
): Promise<string[]> {
  const patient = { ...effort, rounds: 2 * effort.rounds };
  let short = measured.filter((m) => shortfalls(expected, m).length > 0);
  let lines = short.flatMap((m) => shortfalls(expected, m));
  for (const pause of PAUSES) {
    if (short.length === 0) break;
    for (const line of lines) say(`${line}; measuring again in ${pause} s\n`);
    await setTimeout(1000 * pause);
    const again: Measured[] = [];
    for (const m of short) again.push(await remeasure(m, patient));
    short = again.filter((m) => shortfalls(expected, m).length > 0);
    lines = short.flatMap((m) => shortfalls(expected, m));
  }
  return lines;
}

const shortfalls = (expected: Expected, m: Measured): string[] =>
  SIDES.flatMap((side) => {
    const [recorded, ratio] = [expected.ratio(m, side), ratioOf(m, side)];
    if (recorded === null || ratio === null) return [];
    const tolerance = m.size <= OWN_CACHE ? TOLERANCE.inOwnCache : TOLERANCE.beyond;
    const bar = recorded * tolerance * expected.share;
    if (ratio >= bar) return [];
    return [
      `${m.name} ${m.layout} ${m.op}, ${side}: ${number(ratio)} times the JavaScript loop, ` +
        `recorded ${number(recorded)}, at least ${number(bar)} expected`,
    ];
  });

async function remeasure(m: Measured, effort: Effort): Promise<Measured> {
  const c = CASES.find(({ name, layout }) => name === m.name && layout === m.layout);
  if (!c) throw new Error(`no such case: ${m.name} ${m.layout}`);
  const sides = QUICK_SIDES.filter(({ ops }) => ops.includes(m.op));
  return { ...m, timings: await measure(c, m.op, makeData(c), sides, effort) };
}
