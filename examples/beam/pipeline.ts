/**
 * Exact statistics for test time, as `calibrate` computes them, by an Apache Beam pipeline; then
 * both side by side.
 *
 *   npm start --prefix examples/beam
 */

import * as beam from "apache-beam";
import { createRunner } from "apache-beam/runners/runner";
import { requireForSerialization } from "apache-beam/serialization";
import { calibrate, Moments } from "batchnorm-wasm";
import Table from "cli-table3";
import { inOrder, pixels } from "../mnist/data.js";
import { type Part, pooling } from "./combine.js";
import { forward, loadDigits, loadNetwork, normsOf } from "./network.js";

/** Digits in a batch; the last one is smaller. */
const BATCH = 512;
/** What the two may differ by: of running means in standard deviations, of variances relatively. */
const TOLERANCE = 1e-12;

const digits = loadDigits();
const batches = [...inOrder(digits, BATCH)];
const { layers, trained } = loadNetwork();

/** A line now and then. */
function tell(done: number): void {
  if (done % 20 === 0) console.log(`  ${done} of ${batches.length} batches`);
}

/** What one batch tells of each layer, each of which normalizes by the batch (PreciseBN). */
function toPart(batch: number): Part {
  const found: Moments[] = [];
  forward(layers, pixels(digits, batches[batch]), (norm, x) => {
    const statistics = norm.moments(x);
    found.push(statistics);
    return norm.train(x, { statistics, updateRunning: false });
  });
  tell(batch + 1);
  return { batches: 1, layers: found.map((moments) => moments.toJSON()) };
}

const same = (part: Part): Part => part;

let pooled: Part | undefined;
const keep = (result: { pooled: Part }): void => {
  pooled = result.pooled;
};

// Beam sends functions that it knows by name, others as their source, without what that refers to.
requireForSerialization("batchnorm-wasm-example-beam/pipeline", { toPart, same, pooling, keep });

console.log(
  trained
    ? "The demo's network (examples/mnist/out/network.json)."
    : "An untrained network; `npm run demo` makes a trained one.",
);
console.log("Beam, direct runner:");
const start = performance.now();
await createRunner({ runner: "direct" }).run((root) =>
  root
    // Numbers only: Beam takes quadratic time to encode what is handed to `create`.
    .apply(beam.create(batches.map((_, batch) => batch)))
    .map(toPart)
    .apply(beam.groupGlobally<Part>().combining(same, pooling, "pooled"))
    .map(keep),
);
if (pooled === undefined) throw new Error("pipeline: expected a result, got none.");
const { batches: counted, layers: moments } = pooled as Part;
const norms = normsOf(layers);
norms.forEach((norm, i) => {
  norm.setRunning(Moments.fromJSON(moments[i]));
});
const beamTime = performance.now() - start;

console.log("The same network once more, by calibrate:");
const local = loadNetwork().layers;
const localStart = performance.now();
const report = await calibrate(
  normsOf(local),
  (batch: Uint32Array) => forward(local, pixels(digits, batch), (norm, x) => norm.train(x)),
  batches,
  { onProgress: ({ batches: done }) => tell(done) },
);
const localTime = performance.now() - localStart;

const seconds = (milliseconds: number): string => `${(milliseconds / 1000).toFixed(2)} s`;
const style = { head: [], border: [], compact: true };
const runs = new Table({ head: ["", "batches", "digits", "time"], style });
runs.push(["Beam", counted, moments[0].count, seconds(beamTime)]);
runs.push(["calibrate", report.batches, report.examples, seconds(localTime)]);
console.log(`\n${runs.toString()}\n`);

const table = new Table({
  head: ["largest difference", "mean, in σ", "variance, relative"],
  style,
});
let worst = 0;
normsOf(local).forEach(({ runningMean, runningVariance }, i) => {
  const own = norms[i];
  const means = runningMean.map((m, c) =>
    Math.abs((own.runningMean[c] - m) / Math.sqrt(runningVariance[c])),
  );
  const variances = runningVariance.map((v, c) => Math.abs(own.runningVariance[c] / v - 1));
  const row = [Math.max(...means), Math.max(...variances)];
  worst = Math.max(worst, ...row);
  table.push([`layer ${i + 1}`, ...row.map((value) => value.toExponential(1))]);
});
console.log(`${table.toString()}\n`);
// Not `worst > TOLERANCE`, which NaN would pass.
const agree = worst <= TOLERANCE && counted === report.batches;
console.log(agree ? `Equal to ${TOLERANCE}.` : `Differ by ${worst}, more than ${TOLERANCE}.`);
process.exitCode = agree ? 0 : 1;
