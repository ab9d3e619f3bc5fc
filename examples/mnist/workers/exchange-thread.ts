// For exchange.test.ts: gives values of its own, in a hurry or not, and tells what it got.

import { parentPort, workerData } from "node:worker_threads";
import { Exchange, type Seat } from "./exchange.js";

const seat = workerData as Seat;
const exchange = new Exchange(seat);
const got: unknown[] = [];
for (let round = 0; round < 200; round++) {
  const until = performance.now() + ((round * 7 + seat.index * 3) % 5) / 10;
  while (performance.now() < until);
  got.push(exchange.all({ from: seat.index, values: Float64Array.of(round, seat.index) }));
}
exchange.close();
parentPort?.postMessage(got);
