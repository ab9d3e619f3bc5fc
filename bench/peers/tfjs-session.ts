// What is measured of TensorFlow.js, in Node and in pages. It takes a Float32Array and returns one. Test time is
// tf.batchNorm. Training is what tf.layers.batchNormalization does: tf.moments, then tf.batchNorm. Gradients come
// from its autograd, which runs forward and backward in one call: `step`.

import type * as Tf from "@tensorflow/tfjs-core";
import { type Case, type Data, EPSILON, type PeerOp } from "../cases.js";
import { type Answer, keep, type Session } from "./peer.js";

export type Backend = "cpu" | "wasm";

export async function openTfjs(
  tf: typeof Tf,
  backend: Backend,
  c: Case,
  op: PeerOp,
  data: Data,
): Promise<Session> {
  await tf.setBackend(backend);
  const { x, dy } = data;
  const shape = [...c.shape];
  const axes = shape.slice(0, -1).map((_, axis) => axis);
  const gamma = tf.tensor1d(data.gamma);
  const beta = tf.tensor1d(data.beta);
  const mean = tf.tensor1d(data.mean);
  const variance = tf.tensor1d(data.variance);

  const normalize = (input: Tf.Tensor, scale: Tf.Tensor1D, offset: Tf.Tensor1D): Tf.Tensor => {
    if (op === "infer") return tf.batchNorm(input, mean, variance, offset, scale, EPSILON);
    const of = tf.moments(input, axes);
    return tf.batchNorm(
      input,
      of.mean as Tf.Tensor1D,
      of.variance as Tf.Tensor1D,
      offset,
      scale,
      EPSILON,
    );
  };
  /** What follows batch norm in a block. */
  const follow = (y: Tf.Tensor, residual: Tf.Tensor | undefined): Tf.Tensor =>
    c.after ? tf.relu(residual ? tf.add(y, residual) : y) : y;
  const added = (): Tf.Tensor[] => (data.z ? [tf.tensor(data.z, shape)] : []);
  const forward = (): Float32Array => {
    const y = tf.tidy(() => follow(normalize(tf.tensor(x, shape), gamma, beta), added()[0]));
    const values = y.dataSync() as Float32Array;
    y.dispose();
    return values;
  };
  const derive = tf.grads((input, scale, offset, residual) =>
    follow(normalize(input, scale as Tf.Tensor1D, offset as Tf.Tensor1D), residual),
  );
  const step = (): Answer => {
    const of = tf.tidy(() =>
      derive([tf.tensor(x, shape), gamma, beta, ...added()], tf.tensor(dy, shape)),
    );
    const [dx, dgamma, dbeta, dadd] = of.map((tensor) => {
      const values = tensor.dataSync() as Float32Array;
      tensor.dispose();
      return values;
    });
    return { dx, dgamma, dbeta, ...(dadd && { dadd }) };
  };

  return {
    answer: () => (op === "step" ? step() : { y: forward() }),
    async sample(calls) {
      await tf.setBackend(backend);
      const start = performance.now();
      let last = x;
      if (op === "step") for (let i = 0; i < calls; i++) last = step().dx as typeof x;
      else for (let i = 0; i < calls; i++) last = forward() as typeof x;
      const spent = performance.now() - start;
      keep(last);
      return spent;
    },
    close() {
      tf.dispose([gamma, beta, mean, variance]);
    },
  };
}
