// npm install && npm start
//
// Until batchnorm-wasm is in the registry: `npm ci && npm pack` in the repository's root, then here
// `npm install ../../batchnorm-wasm-0.1.0.tgz`.

import { BatchNorm } from "batchnorm-wasm";

const EXAMPLES = 4096;
const COLORS = ["#4269d0", "#efb118", "#3ca951"];

const find = <E extends Element>(selector: string): E => document.querySelector<E>(selector)!;
const [mean, sigma] = ["#mean", "#sigma"].map((id) => find<HTMLInputElement>(id));

/** Bell-shaped numbers, the same at each call: low-discrepancy points, four to a number. */
function bell(i: number, feature: number): number {
  let sum = -2;
  for (let k = 1; k <= 4; k++) sum += ((i + 1) * (0.38 + 0.137 * k + 0.0713 * feature) * k) % 1;
  return sum * Math.sqrt(3);
}

const bn = new BatchNorm(3, { gamma: false, beta: false });

function update(): void {
  const means = [mean.valueAsNumber, -4, 0];
  const sigmas = [sigma.valueAsNumber, 0.6, 3];
  const x = Float32Array.from({ length: 3 * EXAMPLES }, (_, i) => {
    const c = i % 3;
    return means[c] + sigmas[c] * bell(Math.floor(i / 3), c);
  });
  const y = bn.train(x, { updateRunning: false });
  draw(find("#before"), x);
  draw(find("#after"), y);
  const { mean: center, m2, count } = bn.moments(y);
  find<HTMLOutputElement>("output").value = Array.from(
    center,
    (m, c) => `mean ${Math.abs(m).toFixed(3)}, σ ${Math.sqrt(m2[c] / count).toFixed(3)}`,
  ).join("; ");
}

/** A histogram of each feature. */
function draw(svg: SVGElement, values: Float32Array): void {
  const bins = COLORS.map(() => new Float64Array(100));
  values.forEach((v, i) => {
    const bin = Math.floor((v + 10) * 5);
    if (bin >= 0 && bin < 100) bins[i % 3][bin] += 20 / EXAMPLES;
  });
  svg.innerHTML = bins
    .map((heights, c) => {
      const tops = Array.from(heights, (h, bin) => `${bin / 5 - 10},${4.5 - h}`).join(" ");
      return `<polygon points="-10,4.5 ${tops} 10,4.5" fill="${COLORS[c]}" fill-opacity="0.5" />`;
    })
    .join("");
}

for (const input of [mean, sigma]) input.addEventListener("input", update);
update();
