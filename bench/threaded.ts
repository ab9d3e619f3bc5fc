// This package on kernels of several threads, as a side of the benchmark. Runs in pages too.

import { BatchNorm, type Kernels } from "../dist/index.js";
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
    class Layer extends BatchNorm {
      constructor(channels: number, options: ConstructorParameters<typeof BatchNorm>[1] = {}) {
        super(channels, { ...options, kernels });
      }
    }
    // A constructor that returns an object makes that object.
    const Started = function Started(): Kernels {
      return kernels;
    } as unknown as Build["Kernels"];
    const session = await waysOf({ BatchNorm: Layer, Kernels: Started })[way].open(c, op, data);
    return { ...session, close: () => kernels.close() };
  },
});
