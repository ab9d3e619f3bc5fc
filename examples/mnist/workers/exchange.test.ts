import { Worker } from "node:worker_threads";
import { expect, it } from "vitest";
import { seats } from "./exchange.js";

it.each([1, 2, 3])("%i threads get what all gave, in order, round after round", async (count) => {
  const start = new URL("./start.mjs", import.meta.url);
  const all = await Promise.all(
    seats(count).map((seat) => {
      const transferList = seat.ports.filter((port) => port !== null);
      const worker = new Worker(start, {
        argv: ["exchange-thread.ts"],
        workerData: seat,
        transferList,
      });
      return new Promise<unknown[]>((resolve, reject) => {
        worker.on("message", resolve);
        worker.on("error", reject);
      });
    }),
  );
  const expected = Array.from({ length: 200 }, (_, round) =>
    Array.from({ length: count }, (_, from) => ({ from, values: Float64Array.of(round, from) })),
  );
  for (const got of all) expect(got).toEqual(expected);
});
