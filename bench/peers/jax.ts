// jax-js on its wasm backend, compiled by its `jit`. It takes a Float32Array and returns one. Its gradient is the
// vector-Jacobian product of the forward function, which runs forward and backward in one call: `step`.
//
// jax-js counts references, and an operation uses up its operands. An array that is needed again is given as `.ref`.

import type * as Jax from "@jax-js/jax";
import { type Case, type Data, EPSILON, type PeerOp } from "../cases.js";
import { type Answer, keep, type Peer, peerModule, type Session } from "./peer.js";
import { packageVersion } from "./version.js";

type Arr = Jax.numpy.Array;

export async function jax(): Promise<Peer> {
  const module = await peerModule(() => import("@jax-js/jax"));
  await module.init("wasm");
  module.defaultDevice("wasm");
  return {
    name: "jax-js",
    version: packageVersion("@jax-js/jax"),
    kind: "javascript",
    layouts: ["NC", "NCHW", "NHWC"],
    ops: ["infer", "train", "step"],
    open: async (c, op, data) => open(module, c, op, data),
  };
}

function open({ numpy: np, jit, vjp }: typeof Jax, c: Case, op: PeerOp, data: Data): Session {
  // Every layout is seen as [outer, channels, inner], and parameters get a shape that broadcasts over it.
  const planes = c.inner > 1;
  const shape = planes ? [c.outer, c.channels, c.inner] : [c.outer, c.channels];
  const axes = planes ? [0, 2] : [0];
  const perChannel = planes ? [1, c.channels, 1] : [1, c.channels];
  const channel = (values: Float32Array<ArrayBuffer>) =>
    np.array(values.slice()).reshape(perChannel);
  const tensor = (values: Float32Array<ArrayBuffer>) => np.array(values).reshape(shape);

  const gamma = channel(data.gamma);
  const beta = channel(data.beta);
  const mean = channel(data.mean);
  const testScale = channel(
    data.gamma.map(
      (g, k) => g / Math.sqrt(data.variance[k] + EPSILON),
    ) as Float32Array<ArrayBuffer>,
  );

  // The statistics are a function of their own. In one function with the normalization jax-js would fuse both
  // and take the square root again for every value, for twice the time. At test time the scale is given, worked
  // out beforehand. This is the fastest way that we found.
  const statistics = jit((x: Arr, g: Arr) => {
    const m = np.mean(x.ref, axes, { keepdims: true });
    const variance = np.mean(np.square(x.sub(m.ref)), axes, { keepdims: true });
    return [m, g.div(np.sqrt(variance.add(EPSILON)))];
  });
  const normalize = jit((x: Arr, m: Arr, scale: Arr, b: Arr) => x.sub(m).mul(scale).add(b));
  const training = (x: Arr, g: Arr, b: Arr): Arr => {
    const d = x.ref.sub(np.mean(x, axes, { keepdims: true }));
    const variance = np.mean(np.square(d.ref), axes, { keepdims: true });
    return d.mul(g.div(np.sqrt(variance.add(EPSILON)))).add(b);
  };
  const gradients = jit((x: Arr, g: Arr, b: Arr, dy: Arr) => {
    const [y, back] = vjp(training, [x, g, b]);
    y.dispose();
    return back(dy) as unknown as [Arr, Arr, Arr];
  });

  const forward = (): Float32Array => {
    const x = tensor(data.x);
    if (op === "infer") {
      return normalize(x, mean.ref, testScale.ref, beta.ref).dataSync() as Float32Array;
    }
    const [m, scale] = statistics(x.ref, gamma.ref);
    return normalize(x, m, scale, beta.ref).dataSync() as Float32Array;
  };
  const step = (): Answer => {
    const of = gradients(tensor(data.x), gamma.ref, beta.ref, tensor(data.dy));
    const [dx, dgamma, dbeta] = of.map((array) => array.dataSync() as Float32Array);
    return { dx, dgamma, dbeta };
  };

  return {
    answer: () => (op === "step" ? step() : { y: forward() }),
    sample(calls) {
      const start = performance.now();
      let last: Float32Array = data.x;
      if (op === "step") for (let i = 0; i < calls; i++) last = step().dx as Float32Array;
      else for (let i = 0; i < calls; i++) last = forward();
      const spent = performance.now() - start;
      keep(last);
      return spent;
    },
    close() {
      for (const array of [gamma, beta, mean, testScale]) array.dispose();
      for (const jitted of [statistics, normalize, gradients]) jitted.dispose();
    },
  };
}
