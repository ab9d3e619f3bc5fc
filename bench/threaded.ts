// This package on kernels of several threads, as a side of the benchmark. Runs in pages too.

import { BatchNorm, type BatchNormOptions, type Kernels } from "../dist/index.js";
import { startKernels } from "../dist/threads.js";
import { type Build, ours, waysOf } from "./ours.js";
import type { Peer } from "./peers/peer.js";

/** A way to call this package, on kernels of several threads. */
export const threaded = (way: "resident" | "plain", threads: number): Peer => ({
  ...ours[way],
  name: `${ours[way].name}, ${threads} threads`,
  async open(c, op, data) {
    const memory = 3 * (4 * c.size + 131072) + 4 * 2 ** 20 + 256 * c.channels;
    const kernels = await startKernels({ threads, memory });
    // A constructor that returns an object makes that object. Layers of a class that extends BatchNorm would be of another kind
    // to V8 than those of one thread.
    const build = {
      BatchNorm: function Layer(channels: number, options: BatchNormOptions = {}): BatchNorm {
        return new BatchNorm(channels, { ...options, kernels });
      },
      Kernels: function Started(): Kernels {
        return kernels;
      },
    } as unknown as Build;
    const session = await waysOf(build)[way].open(c, op, data);
    return { ...session, close: () => kernels.close() };
  },
});
