// deno run --allow-write=layer.json main.ts
//
// Until batchnorm-wasm is in the registry: `npm ci && npm run build` in the repository's root, and in
// deno.json "../../dist/index.js" in place of "npm:batchnorm-wasm".
//
// Trains a layer on mini-batches of measurements, prints what test time normalizes by, and writes the
// frozen layer that the other examples serve.

import { BatchNorm } from "batchnorm-wasm";

const NAMES = ["temperature", "pressure", "humidity"]; // °C, hPa, %

/** A mini-batch of 16 weather reports, by a fixed rule: [16, 3]. */
function reports(day: number): Float32Array {
  const rows = Array.from({ length: 16 }, (_, hour) => {
    const phase = (5 * day + 3 * hour) % 16;
    return [12 + phase, 1013 - 0.5 * phase + (day % 3), 80 - 2 * phase];
  });
  return Float32Array.from(rows.flat());
}

const bn = new BatchNorm(NAMES.length, { decay: "cumulative", gamma: false, beta: false });
for (let day = 0; day < 30; day++) bn.train(reports(day));

const noon = Float32Array.of(27, 1006, 50);
const z = bn.infer(noon); // one example: by the running averages
NAMES.forEach((name, c) => {
  const deviation = Math.sqrt(bn.runningVariance[c]);
  console.log(
    `${name.padEnd(12)} ${bn.runningMean[c].toFixed(1)} ± ${deviation.toFixed(1)}: ` +
      `${noon[c]} is ${z[c].toFixed(3)} standard deviations from the mean`,
  );
});
await Deno.writeTextFile("layer.json", `${JSON.stringify(bn.freeze(), null, 2)}\n`);
