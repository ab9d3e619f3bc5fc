// Copies, to compare with: they read and write as many values as `infer` and compute nothing. These are:
// `Float32Array.set` between ordinary arrays; the same within one WebAssembly memory; from an ordinary array into
// a WebAssembly memory and out to another array, which is the way to a kernel and back; `slice`, which makes a new
// array; the copies into shared memory and out of it that each operation needs at least; and those of `infer`'s
// parameters into kernel memory.

import type { Case } from "../cases.js";
import { keep, type Peer, type Session } from "./peer.js";

export const SET_PLAIN = "set (plain)";
export const SET_RESIDENT = "set (kernel memory)";
export const THROUGH = "copies in and out (plain)";
export const SLICE = "slice (plain, fresh out)";

/** The size of a part, and where it lies: as STREAM_FLOATS and STAGGER of src/engine/memory.ts. */
const PART = 65536;
const START = 336;

/** The session of a copy; `copy` returns the array that it has written. */
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
    // Both arrays lie as they do in kernel memory: at different addresses modulo 4096, where copies are fastest.
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

/** The copies of a call with ordinary arrays whose data lie in shared memory while threads compute. */
export const sharedCopies: Peer = {
  ...common,
  name: "copies (shared memory)",
  ops: ["infer", "train", "backward"],
  async open(c, op, { x, dy }) {
    const inputs = op === "backward" ? [x, dy] : [x];
    const bytes = Math.ceil((4 * c.size) / 4096) * 4096 + 2048;
    const pages = Math.ceil((2 * bytes) / 65536);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    const inside = inputs.map((_, i) => new Float32Array(memory.buffer, i * bytes, c.size));
    const out = new Float32Array(c.size);
    return session(() => {
      for (const [i, input] of inputs.entries()) inside[i].set(input);
      out.set(inside[0]);
      return out;
    });
  },
};

/** The parameters of `infer`: gamma, beta; mean, what float64 rounds off it, and variance. */
const PARAMETERS = [Float32Array, Float32Array, Float64Array, Float64Array, Float64Array] as const;

/** The copies of the parameters of `infer` [channels] each into kernel memory: that of one thread, or shared memory. */
export const parameterCopies = (shared: boolean): Peer => ({
  ...common,
  name: `copies of parameters (${shared ? "shared" : "kernel"} memory)`,
  async open({ channels }) {
    const bytes = Math.ceil((8 * channels) / 4096) * 4096;
    const pages = Math.ceil((PARAMETERS.length * bytes) / 65536);
    const { buffer } = new WebAssembly.Memory({ initial: pages, maximum: pages, shared });
    const arrays = PARAMETERS.map((Numbers, i) => ({
      own: new Numbers(channels),
      inside: new Numbers(buffer, i * bytes, channels),
    }));
    return session(() => {
      for (const { own, inside } of arrays) inside.set(own);
      return arrays[0].own as Float32Array;
    });
  },
});

export const copyFresh: Peer = {
  ...common,
  name: SLICE,
  open: async (_, __, { x }) => session(() => x.slice()),
};
