// How long a word takes from one core to another and back. It decides from which size on several threads gain: cores that share a
// cache hear of each other in a quarter of the time that others take, and a virtual machine may have now these and now those.

import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { median } from "./median.js";

const ROUNDS = 5;
/** Trips of a round: a few milliseconds. */
const TRIPS = 10_000;
/** Trips that are not timed, until V8 has optimized both loops. */
const WARM_UP = 50_000;
/** The words lie this many words apart, in different lines of the cache. */
const APART = 64;

const ECHO = `
const { parentPort, workerData: words } = require("node:worker_threads");
parentPort.postMessage("ready");
for (let last = 0; last >= 0; ) {
  const value = Atomics.load(words, 0);
  if (value === last) continue;
  last = value;
  Atomics.store(words, ${APART}, value);
}`;

/** Nanoseconds of a round trip between two threads that both spin: the median of some rounds. */
export async function roundTrip(): Promise<number> {
  const words = new Int32Array(new SharedArrayBuffer(8 * APART));
  const worker = new Worker(ECHO, { eval: true, workerData: words });
  await once(worker, "message");
  let trip = 0;
  const trips = (count: number): number => {
    const start = performance.now();
    for (const end = trip + count; trip < end; ) {
      Atomics.store(words, 0, ++trip);
      while (Atomics.load(words, APART) !== trip);
    }
    return (1e6 * (performance.now() - start)) / count;
  };
  trips(WARM_UP);
  const found = Array.from({ length: ROUNDS }, () => trips(TRIPS));
  Atomics.store(words, 0, -1);
  await once(worker, "exit");
  return median(found);
}
