// What the benchmark makes of a run on several threads: ratios, the limit that memory sets, goals, and the chapter of the report.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, expect, it } from "vitest";
import { type Layout, makeCase, type Op } from "../bench/cases.js";
import { descendants } from "../bench/cores.js";
import { type Measured, type ThreadsResult, withThreads } from "../bench/record.js";
import { against, bandwidth, gains, memoryLimits, threadGoals } from "../bench/threads-goals.js";
import { threadsPlots, threadsSection } from "../bench/threads-report.js";

/** An operation of a shape, with the time of each side in microseconds; the median is 1.5 times the best. */
function row(
  dims: readonly number[],
  layout: Layout,
  op: Op,
  times: Readonly<Record<string, number>>,
): Measured {
  const { name, size } = makeCase(dims, layout);
  const timings = Object.entries(times).map(([side, time]) => ({
    side,
    time,
    noise: 1.5,
    error: 0,
  }));
  return { name, layout, size, op, timings };
}

const run = (
  cases: readonly Measured[],
  { count = 2, caches = { L2: "1024K", L3: "32768K" } as Record<string, string> } = {},
): ThreadsResult => ({
  date: "2026-11-30T08:00:00.000Z",
  commit: { id: null, changed: false },
  machine: {
    kind: "any",
    cpu: "Any",
    cores: 2,
    memoryGiB: 8,
    caches,
    platform: "any",
    node: "20",
    v8: "11",
  },
  effort: { rounds: 1, burst: 1 },
  peers: [
    { name: "oneDNN", version: "2", kind: "native" },
    { name: "tfjs-wasm", version: "4", kind: "javascript" },
    { name: "plain, 2 threads, in Chromium", version: "", kind: "ours" },
  ],
  skipped: [],
  count,
  load: 0.25,
  roundTrip: { least: 95, median: 123.4, most: 460.6 },
  cases,
  sizes: [],
  cores: [{ side: "tfjs-wasm", op: "infer", cores: 1.02 }],
});

const TWO = "resident, 2 threads";
/** 16 Mi values, 64 MiB an array: in no cache of 32 MiB. */
const LARGEST = [262144, 64];

describe("the benchmark on several threads", () => {
  it("says how many times as long one thread takes", () => {
    const small = row([64, 64], "NC", "infer", { resident: 3, [TWO]: 2 });
    expect(gains({ count: 2 }, [small], "infer", "resident")).toEqual([
      { at: "[64,64] NC", size: 4096, value: 1.5 },
    ]);
    expect(gains({ count: 2 }, [small], "train", "resident")).toEqual([]);
    expect(gains({ count: 4 }, [small], "infer", "resident")).toEqual([]);
  });

  it("takes the bandwidth from what no cache holds, and limits all operations by it", () => {
    const values = 2 ** 24;
    // 12 bytes a value in 4,000 µs, as medians 6,000 µs: 33.55 GB/s on one thread; twice as many on two.
    const result = run([
      row(LARGEST, "NC", "infer", { resident: 4000, [TWO]: 2000 }),
      row(LARGEST, "NC", "train", { resident: 8000, [TWO]: 4500 }),
      row(LARGEST, "NC", "backward", { resident: 10000, [TWO]: 7000 }),
      // 6.1 Mi values, 49 MiB: in two caches of 32 MiB, which cores may have that are far from each other.
      row([32, 64, 56, 56], "NCHW", "infer", { resident: 1000, [TWO]: 300 }),
      // From caches: many times as fast, which says nothing of memory.
      row([1024, 1024], "NC", "infer", { resident: 10, [TWO]: 5 }),
    ]);
    const gigabytes = (12 * values) / 3000 / 1e3;
    expect(bandwidth(result, 1)).toBeCloseTo(gigabytes / 2, 9);
    expect(bandwidth(result, 2)).toBeCloseTo(gigabytes, 9);

    const limits = (["infer", "train", "backward"] as const).map((op) =>
      memoryLimits(result, op).map(({ at, value }) => [at, Number(value.toFixed(6))]),
    );
    // 16 and 24 bytes a value take 4/3 and 2 times as long as 12: 4,000 µs and 6,000 µs on two threads.
    expect(limits).toEqual([
      [["[262144,64] NC", 2]],
      [["[262144,64] NC", 3]],
      [["[262144,64] NC", 2.5]],
    ]);
  });

  it("knows of no limit where nobody says how large the caches are, or where they hold everything", () => {
    const cases = [row(LARGEST, "NC", "infer", { resident: 4000, [TWO]: 2000 })];
    for (const caches of [{}, { L3: "491520K" }] as Record<string, string>[]) {
      const result = run(cases, { caches });
      expect(bandwidth(result, 2)).toBeUndefined();
      expect(memoryLimits(result, "infer")).toEqual([]);
    }
  });

  it("compares our NCHW with oneDNN's NHWC, and others in the layout that they have", () => {
    const dims = [8, 128, 28, 28];
    const times = { [TWO]: 10, oneDNN: 30, PyTorch: 20 };
    const result = run([
      row(dims, "NCHW", "infer", times),
      row(dims, "NHWC", "infer", { ...times, oneDNN: 15 }),
    ]);
    const values = (peer: string) => against(result, "infer", peer, TWO).map(({ value }) => value);
    expect(values("oneDNN")).toEqual([1.5, 1.5]);
    expect(values("PyTorch")).toEqual([2, 2]);
  });

  it("holds two threads to the goals, by size, and sets none for more", () => {
    const cases = [
      row([1024, 1024], "NC", "infer", { resident: 20, [TWO]: 10, "resident, 4 threads": 5 }),
      row([256, 256], "NC", "infer", { resident: 12, [TWO]: 10, "resident, 4 threads": 5 }),
    ];
    const found = (count: number) =>
      threadGoals(run(cases, { count }))
        .filter(({ measured }) => measured !== "not measured")
        .map(({ what, met }) => [what, met]);
    expect(found(2)).toEqual([
      ["one thread / 2, resident, infer, from 256 Ki values on", true],
      ["one thread / 2, resident, infer, 16 Ki to 256 Ki", false],
    ]);
    expect(found(4).map(([, met]) => met)).toEqual([null, null]);
  });

  it("compares with one thread under the same load, by the medians", () => {
    const busy = [
      row([256, 256], "NC", "infer", { resident: 10, [TWO]: 9 }),
      row([256, 256], "NC", "train", { resident: 10, [TWO]: 14.4 }),
    ].map((found) => ({
      ...found,
      timings: found.timings.map((timing) =>
        timing.side === TWO ? { ...timing, noise: 1.5 * 1.25 } : timing,
      ),
    }));
    const goalOf = (result: ThreadsResult) =>
      threadGoals(result).find(({ what }) => what.startsWith(`${TWO} / one thread, other cores`));
    expect(goalOf({ ...run([]), busy })).toEqual({
      what: "resident, 2 threads / one thread, other cores busy, median time",
      goal: "mean ≤ 1.3",
      measured: "1.42, most 1.80 at [256,256] NC train",
      met: false,
    });
    expect(goalOf(run([]))).toMatchObject({ measured: "not measured", met: null });
  });

  it("keeps one run for each number of threads", () => {
    const empty = { result: null, growth: null };
    const [two, four] = [run([], { count: 2 }), run([], { count: 4 })];
    const both = withThreads(withThreads(empty, four), two);
    expect(both.threads).toEqual([two, four]);
    const later = { ...two, date: "2026-12-01T08:00:00.000Z" };
    expect(withThreads(both, later).threads).toEqual([later, four]);
  });

  it("writes a chapter with the picture, who was compared with whom, and how many cores worked", () => {
    const cases = [
      row([1024, 1024], "NC", "infer", {
        resident: 20,
        [TWO]: 10,
        oneDNN: 25,
        "tfjs-wasm": 60,
        "plain, 2 threads, in Chromium": 30,
      }),
    ];
    const text = threadsSection([run(cases)], (file) => `picture of ${file}`).join("\n\n");
    expect(text).toContain("picture of threads.svg");
    expect(text).toContain("The load average before it was 0.3; the median burst took 1.50 times");
    expect(text).toContain("| oneDNN | resident, 2 threads | 2.50 (2.50 – 2.50) |  |  |");
    expect(text).toContain(
      "| tfjs-wasm | plain, 2 threads, in Chromium | 2.00 (2.00 – 2.00) |  |  |",
    );
    expect(text).toContain("| tfjs-wasm | 1.02 |  |");
    expect(text).toContain("from one thread to another and back in 95 to 461 ns, mostly 123.");
    expect(text).not.toContain("Other programs were running");
    const busy = threadsSection([{ ...run(cases), load: 3 }], String).join("\n\n");
    expect(busy).toContain("Other programs were running");
    expect(threadsSection([], String)).toEqual([]);
  });

  it("draws one picture of all runs, and none where there is no run", () => {
    const cases = [
      row(LARGEST, "NC", "infer", { resident: 4, [TWO]: 2, "resident, 4 threads": 1 }),
    ];
    const [[name, spec], ...others] = threadsPlots([run(cases), run(cases, { count: 4 })]);
    const { values } = (spec as unknown as { data: { values: object[] } }).data;
    expect([name, others.length]).toEqual(["threads.svg", 0]);
    const at = { op: "infer", size: 2 ** 24 };
    expect(values).toContainEqual({
      ...at,
      kind: 1,
      name: "2 threads: other shapes (dots)",
      value: 2,
    });
    expect(values).toContainEqual({
      ...at,
      kind: 1,
      name: "4 threads: other shapes (dots)",
      value: 4,
    });
    expect(threadsPlots([])).toEqual([]);
    expect(threadsPlots(undefined)).toEqual([]);
  });

  it.runIf(process.platform === "linux")("finds the processes that a process started", async () => {
    const wait = "setInterval(() => {}, 1000); console.log(process.pid);";
    const start = `require("node:child_process").spawn(process.execPath, ["--eval", ${JSON.stringify(wait)}], { stdio: "inherit" });`;
    const parent = spawn(process.execPath, ["--eval", start], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [said] = await once(parent.stdout, "data");
    const child = Number(String(said));
    try {
      expect(descendants(parent.pid!)).toEqual([parent.pid, child]);
    } finally {
      process.kill(child);
      parent.kill();
    }
  });
});
