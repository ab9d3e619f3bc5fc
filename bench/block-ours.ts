// The sides of block.ts that are this package: a layer that does the whole block, batch norm alone, and batch norm
// with separate steps after it (before it, in `backward`). All of them work on the same tensors, so that none has a
// luckier place in memory.

import { BatchNorm, type FrozenBatchNorm, Kernels } from "../dist/index.js";
import { type Case, type Data, EPSILON, OPS, type PeerOp } from "./cases.js";
import { type Answer, keep, type Peer, type Session } from "./peers/peer.js";

type Place = "resident" | "plain";
/** What is done in one call of the layer, and what besides it. */
type Way = "fused" | "alone" | "js" | "ours";

const NAMES: Readonly<Record<Way, string>> = {
  fused: "",
  alone: ", norm alone",
  js: ", then JavaScript",
  ours: ", then ours",
};

export const blockSide = (place: Place, way: Way): string => `${place}${NAMES[way]}`;

interface Tensors {
  /** null: ordinary arrays. */
  readonly kernels: Kernels | null;
  readonly x: Float32Array;
  readonly dy: Float32Array;
  readonly z: Float32Array | null;
  readonly out: Float32Array;
  /** The gradient of the residual or, between separate steps, dy as the ReLU lets it through. */
  readonly g: Float32Array;
  /** The result of the block, by which a separate ReLU knows what to let through. */
  readonly y: Float32Array;
}

/** Of the case that is measured; those of the case before are garbage. */
const made = new WeakMap<Data, Record<Place, Tensors>>();

function tensorsOf(c: Case, data: Data): Record<Place, Tensors> {
  const known = made.get(data);
  if (known) return known;
  const kernels = new Kernels({
    memory: 6 * (4 * c.size + 131072) + 4 * 2 ** 20 + 256 * c.channels,
  });
  const resident = (values: Float32Array | undefined): Float32Array => {
    const tensor = kernels.alloc(c.size);
    if (values) tensor.set(values);
    return tensor;
  };
  const { x, dy, z = null } = data;
  const array = () => new Float32Array(c.size);
  const tensors = {
    resident: {
      kernels,
      x: resident(x),
      out: resident(undefined),
      dy: resident(dy),
      g: resident(undefined),
      y: resident(undefined),
      z: z && resident(z),
    },
    plain: { kernels: null, x, dy, z, out: data.out ?? array(), g: array(), y: array() },
  };
  made.set(data, tensors);
  return tensors;
}

function layerOf(c: Case, data: Data, way: Way, kernels: Kernels | null): BatchNorm {
  const bn = new BatchNorm(c.channels, {
    layout: c.layout,
    epsilon: EPSILON,
    ...(way === "fused" && { activation: "relu" as const }),
    ...(kernels && { kernels }),
  });
  bn.gamma?.set(data.gamma);
  bn.beta?.set(data.beta);
  bn.runningMean.set(data.mean);
  bn.runningVariance.set(data.variance);
  return bn;
}

/** A layer that adds nothing of its own: 1·x + 0, and a ReLU. */
const reluOf = (c: Case, kernels: Kernels | null): FrozenBatchNorm =>
  new BatchNorm(c.channels, {
    ...{ layout: c.layout, epsilon: 0, gamma: false, beta: false, activation: "relu" },
    ...(kernels && { kernels }),
  }).freeze();

// The steps that JavaScript does work on the bits of the values: of -0 and all that is less than 0 the first bit is set, and
// a branch for each sign would often be guessed wrong. That is two to four times as fast as `y > 0 ? y : 0`.

/** A ReLU, in place, or of y + z. */
function relu(y: Float32Array, bits: Int32Array, z: Float32Array | null): void {
  const { length } = bits;
  if (z === null) {
    for (let i = 0; i < length; i++) {
      const v = bits[i];
      bits[i] = v & ~(v >> 31);
    }
    return;
  }
  for (let i = 0; i < length; i++) {
    y[i] += z[i];
    const v = bits[i];
    bits[i] = v & ~(v >> 31);
  }
}

/** g = dy where y is above 0, else 0. y is the result of a ReLU, so it is not less than 0. */
function gate(g: Int32Array, dy: Int32Array, y: Int32Array): void {
  const { length } = g;
  for (let i = 0; i < length; i++) g[i] = dy[i] & (-y[i] >> 31);
}

const bitsOf = ({ buffer, byteOffset, length }: Float32Array): Int32Array =>
  new Int32Array(buffer, byteOffset, length);

function open(place: Place, way: Way, c: Case, op: PeerOp, data: Data): Session {
  const tensors = tensorsOf(c, data)[place];
  const bn = layerOf(c, data, way, tensors.kernels);
  return op === "backward"
    ? backward(bn, way, c, tensors)
    : forward(bn, way, c, op === "train" ? "train" : "infer", tensors);
}

/** Batch norm of x into `out`, and what follows it there. */
function forward(
  bn: BatchNorm,
  way: Way,
  c: Case,
  op: "infer" | "train",
  { kernels, x, z, out }: Tensors,
): Session {
  const { shape } = c;
  const residual = z && { add: z };
  const options = { shape, out, ...(way === "fused" && residual) };
  const norm = op === "infer" ? () => void bn.infer(x, options) : () => void bn.train(x, options);
  if (way === "js") {
    const bits = bitsOf(out);
    return sessionOf(out, () => {
      norm();
      relu(out, bits, z);
    });
  }
  if (way === "ours") {
    const frozen = reluOf(c, kernels);
    const given = { shape, out, ...residual };
    return sessionOf(out, () => {
      norm();
      frozen.infer(out, given);
    });
  }
  return sessionOf(out, norm);
}

function sessionOf(out: Float32Array, call: () => void): Session {
  return {
    answer() {
      call();
      return { y: out };
    },
    sample: sampleOf(call, out),
  };
}

const sampleOf = (call: () => void, out: Float32Array) => (calls: number) => {
  const start = performance.now();
  for (let i = 0; i < calls; i++) call();
  const spent = performance.now() - start;
  keep(out);
  return spent;
};

function backward(bn: BatchNorm, way: Way, c: Case, tensors: Tensors): Session {
  const { x, dy, z, g, out, y } = tensors;
  const { shape } = c;
  const add = z && { add: z };
  const dgamma = new Float32Array(c.channels);
  const dbeta = new Float32Array(c.channels);
  const into = { out: { dx: out, dgamma, dbeta, ...(way === "fused" && z && { dadd: g }) } };
  bn.train(x, { shape, ...(way === "fused" && add) });
  let call = () => void bn.backward(dy, into);
  if (way === "js") {
    y.set(bn.train(x, { shape }));
    relu(y, bitsOf(y), z);
    const [gBits, dyBits, yBits] = [g, dy, y].map(bitsOf);
    call = () => {
      gate(gBits, dyBits, yBits);
      bn.backward(g, into);
    };
  }
  return {
    answer(): Answer {
      call();
      return { dx: out, dgamma, dbeta, ...(z && { dadd: g }) };
    },
    sample: sampleOf(call, out),
  };
}

const side = (place: Place, way: Way): Peer => ({
  name: blockSide(place, way),
  version: "",
  kind: "ours",
  layouts: ["NC", "NCHW", "NHWC"],
  ops: way === "ours" ? ["infer", "train"] : OPS,
  alone: way === "alone",
  open: async (c, op, data) => open(place, way, c, op, data),
});

/** The first is the block in one call, in kernel memory. */
export const BLOCK_OURS: readonly Peer[] = (["resident", "plain"] as const).flatMap((place) =>
  (["fused", "alone", "js", "ours"] as const).map((way) => side(place, way)),
);
