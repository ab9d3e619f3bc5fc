// Not peers but copies to compare with: what `infer` reads and writes, and nothing computed. `Float32Array.set` between
// ordinary arrays and inside one WebAssembly memory (where both stand 64 bytes apart modulo 4096, as kernel
// memory has them); from an ordinary array through a WebAssembly memory into another one, as values that a
// kernel is to see have to go; and `slice`, into a fresh array.

import type { Case } from "../cases.js";
import { keep, type Peer, type Session } from "./peer.js";

export const SET_PLAIN = "set (plain)";
export const SET_RESIDENT = "set (kernel memory)";
export const THROUGH = "copies in and out (plain)";
export const SLICE = "slice (plain, fresh out)";

/** As STREAM_FLOATS and STAGGER of src/memory.ts. Parts of 16 KiB to 16 MiB take equally long. */
const PART = 65536;
const START = 336;

/** Of a copy, which returns where it went. */
const session = (copy: () => Float32Array): Session => ({
  answer: () => ({}),
  sample(calls) {
    const start = performance.now();
    let last = copy();
    for (let i = 1; i < calls; i++) last = copy();
    const spent = performance.now() - start;
    keep(last);
    return spent;
  },
});

const set = (from: Float32Array, to: Float32Array): Session =>
  session(() => {
    to.set(from);
    return to;
  });

const common = {
  version: "",
  kind: "copy",
  layouts: ["NC", "NCHW", "NHWC"],
  ops: ["infer"],
} as const;

export const copyPlain: Peer = {
  ...common,
  name: SET_PLAIN,
  open: async (_: Case, __, data) => set(data.x, new Float32Array(data.x.length)),
};

export const copyResident: Peer = {
  ...common,
  name: SET_RESIDENT,
  async open(c, _, data) {
    const bytes = Math.ceil((4 * c.size) / 4096) * 4096 + 2048;
    const pages = Math.ceil((2 * bytes) / 65536);
    const { buffer } = new WebAssembly.Memory({ initial: pages, maximum: pages });
    const from = new Float32Array(buffer, 0, c.size);
    from.set(data.x);
    return set(from, new Float32Array(buffer, bytes, c.size));
  },
};

export const copyThrough: Peer = {
  ...common,
  name: THROUGH,
  async open(c, _, { x }) {
    const { buffer } = new WebAssembly.Memory({ initial: 5 });
    const y = new Float32Array(c.size);
    const parts: [from: Float32Array, inside: Float32Array, at: number][] = [];
    for (let at = 0; at < c.size; at += PART) {
      const from = x.subarray(at, at + PART);
      parts.push([from, new Float32Array(buffer, START, from.length), at]);
    }
    return session(() => {
      for (const [from, inside, at] of parts) {
        inside.set(from);
        y.set(inside, at);
      }
      return y;
    });
  },
};

export const copyFresh: Peer = {
  ...common,
  name: SLICE,
  open: async (_, __, { x }) => session(() => x.slice()),
};
