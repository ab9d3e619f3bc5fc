// A thread of scripts/figures.ts that has a part of a batch: says what it found of it, hears what all
// found, and normalizes and differentiates its part as one of the whole.

import { parentPort, workerData } from "node:worker_threads";
import { BatchNorm } from "batchnorm-wasm";

/** The next message. */
const heard = () => new Promise((resolve) => parentPort.once("message", resolve));

const { snapshot, x, dy } = workerData;
const bn = BatchNorm.fromSnapshot(snapshot);

parentPort.postMessage(bn.moments(x));
bn.train(x, { statistics: await heard() });

parentPort.postMessage(bn.backwardSums(dy));
const gradients = bn.backward(dy, { sums: await heard() });

const { runningMean, runningVariance } = bn;
parentPort.postMessage({ ...gradients, runningMean, runningVariance });
