// Not a peer but the limit: `Float32Array.set` of as many values, which reads and writes what
// `infer` reads and writes and computes nothing. Once between ordinary arrays, once inside one
// WebAssembly memory (where both stand 64 bytes apart modulo 4096, as kernel memory has them).

import type { Case } from "../cases.js";
import { keep, type Peer, type Session } from "./peer.js";

const session = (from: Float32Array, to: Float32Array): Session => ({
  answer: () => ({}),
  sample(calls) {
    const start = performance.now();
    for (let i = 0; i < calls; i++) to.set(from);
    const spent = performance.now() - start;
    keep(to);
    return spent;
  },
});

const common = {
  version: "",
  kind: "copy",
  layouts: ["NC"],
  ops: ["infer"],
} as const;

export const copyPlain: Peer = {
  ...common,
  name: "set (plain)",
  open: async (_: Case, __, data) => session(data.x, new Float32Array(data.x.length)),
};

export const copyResident: Peer = {
  ...common,
  name: "set (kernel memory)",
  async open(c, _, data) {
    const bytes = Math.ceil((4 * c.size) / 4096) * 4096 + 2048;
    const pages = Math.ceil((2 * bytes) / 65536);
    const { buffer } = new WebAssembly.Memory({ initial: pages, maximum: pages });
    const from = new Float32Array(buffer, 0, c.size);
    from.set(data.x);
    return session(from, new Float32Array(buffer, bytes, c.size));
  },
};
