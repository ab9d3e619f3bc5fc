/** The report: one HTML file that needs no network, readable in light and dark and on a phone. */

import type { Evaluation, Way } from "./evaluate.js";
import {
  accuracyBySteps,
  accuracyByTestBatch,
  inputPercentiles,
  type Plot,
  sweepPlot,
  unitStatistics,
} from "./plots.js";
import type { About } from "./saved.js";
import { SHIFT } from "./shift.js";
import type { Diagnosed, Estimate, TestTime } from "./testtime.js";
import { type Milestone, type UnitStatistics, WATCHED } from "./train.js";

export interface Results {
  readonly about: About;
  readonly milestones: readonly Milestone[];
  readonly unit: readonly UnitStatistics[];
  readonly evaluation: Evaluation;
  readonly testTime: TestTime;
  /** The first ten test digits, as they are and shifted, as data URIs. */
  readonly pictures: { readonly plain: string; readonly shifted: string };
  /** Milliseconds per training step, both networks together. */
  readonly stepTime: number;
  /** Processor, runtime and versions it ran on. */
  readonly environment: string;
}

/** `97.35 %` */
export function percent(share: number): string {
  return `${(100 * share).toFixed(2)} %`;
}

/** Milestones at which the network without batch norm is not behind. */
export function notAhead(milestones: readonly Milestone[], after: number): number[] {
  const at = (network: Milestone["network"]) =>
    new Map(milestones.filter((m) => m.network === network).map((m) => [m.step, m.accuracy]));
  const without = at("without");
  return [...at("with")]
    .filter(([step, accuracy]) => step >= after && accuracy <= (without.get(step) ?? 0))
    .map(([step]) => step);
}

export async function renderReport(results: Results): Promise<string> {
  const { about, milestones, unit, evaluation, testTime, pictures } = results;
  const { brief } = testTime;
  const { ways } = evaluation;
  const final = (network: Milestone["network"]) =>
    milestones.findLast((milestone) => milestone.network === network)?.accuracy ?? 0;
  const two = ways.find((way) => way.kind === "mini-batch" && way.batchSize === 2) as Way;

  const body = `
<header>
  <h1>Batch normalization on the MNIST digits</h1>
  <p>The network of <cite>Ioffe &amp; Szegedy 2015</cite>, section 4.1 (784 pixels, three layers of
  100 sigmoids, ten classes), trained for ${count(about.steps)} mini-batches of ${about.batchSize}
  twice: with <code>batchnorm-wasm</code> before every sigmoid, and without. Both from the same
  initial weights, on the same mini-batches, by the same gradient descent.</p>
</header>
<ul class="figures">
  ${figure(percent(final("with")), "with batch norm, one digit at a time, by running averages", "with")}
  ${figure(percent(final("without")), "without batch norm", "without")}
  ${figure(percent(two.accuracy), "with batch norm, but by the statistics of two test digits at a time", "batch")}
</ul>

<h2>While it trains</h2>
${plot(await accuracyBySteps(milestones), `Test accuracy against the number of training mini-batches. ${aheadNote(milestones)}${lowest(milestones) < 0.7 ? " What is below 70 % is off the scale." : ""} Compare the paper's Figure 1a.`)}

<h2>At test time</h2>
<p>In training every mini-batch is normalized by its own mean and variance. A single digit has no
variance, and what a small batch says of it is mostly chance; so test time uses the running averages
that training has gathered. Then an answer depends on its own digit only.</p>
${table(ways)}
${plot(await accuracyByTestBatch(ways), "Accuracy on the 10,000 test digits, in the order of the file, when each batch of so many is normalized by its own mean and variance.")}

<h2>The running averages settle</h2>
<p>Unit ${WATCHED.unit + 1} of hidden layer ${WATCHED.layer + 1}, before it is normalized. The dots
are what each mini-batch says by itself; the line is what test time would use. It starts at mean 0,
variance 1.</p>
${plot(await unitStatistics(unit), "Sample variance (divided by m − 1), as the running average gathers it.")}

<h2>What the sigmoid is fed</h2>
<p>The input of the same unit's sigmoid over the test digits: median, and 15th to 85th percentile.
Compare the paper's Figures 1b and 1c.</p>
${plot(await inputPercentiles(milestones), "Without batch norm the input moves as the layers before it learn; with it, beta and gamma alone set its mean and variance over a mini-batch.")}

<h2>Where the statistics for test time come from</h2>
<p>The running average is one way to get them. Each of these serves the same trained network, on the
test digits plain and shifted: the shifted ones have ${100 * SHIFT.contrast} % of the contrast, a grey ground, and noise.</p>
<p class="digits"><img src="${pictures.plain}" alt="The first ten test digits"><img
src="${pictures.shifted}" alt="The same ten, grey and noisy"></p>
${estimatesTable(testTime.estimates)}
<p>The exact statistics of the first layer were held against float64 sums over all its inputs: the
means agree to ${power(testTime.exactness.mean)} standard deviations, the variances to
${power(testTime.exactness.variance)} of themselves (goal for both: 10<sup>−6</sup>).</p>
<p>What <code>diagnose</code> says of the first layer, on the test digits and on the shifted ones:</p>
${diagnosed(testTime.plainDiagnosis)}
${diagnosed(testTime.shiftedDiagnosis)}

<h2>Too short a training, noticed and repaired</h2>
<p>${brief.steps} mini-batches with decay ${brief.decay}: the averages still remember the 0 and 1 that
they started with, and test accuracy is ${percent(brief.before)}. <code>diagnose</code> says so;
after <code>calibrate</code> it is ${percent(brief.after)}. <code>calibrate</code> went over the training
digits in mini-batches and took the averages of these alone; so they are what the second text counts.</p>
${diagnosed(brief.diagnosis)}
${diagnosed(brief.diagnosisAfter)}

<h2>How robust it is</h2>
${plot(await sweepPlot(testTime.sweep.points), `Networks trained for ${count(testTime.sweep.steps)} mini-batches of 16, 60 and 256, each with running averages of four decays. Above: test accuracy; the dashed lines are the exact statistics (<code>calibrate</code>). Below: how far the averages are from the exact ones, root mean square over all channels: means in standard deviations, variances by the logarithm of their ratio. Short memories are noisy, the more so with small batches; long ones lag behind the network, or still hold their start.`)}

<footer>
<h2>How it was made</h2>
<p>Seed ${about.seed}; weights from a Gaussian of deviation 0.1; pixels scaled to 0 … 1; plain
gradient descent, learning rate ${about.learningRate} for both (how far apart they are depends on
it: try others with <code>--learning-rate</code>); batch norm with the library's
defaults (decay 0.9, epsilon 1e-5). A step of both networks took ${results.stepTime.toFixed(1)} ms.
${escapeHtml(results.environment)}</p>
<p><code>npm run demo -- --steps ${about.steps} --seed ${about.seed} --learning-rate
${about.learningRate}</code></p>
</footer>`;
  return page("Batch normalization on the MNIST digits", body);
}

function lowest(milestones: readonly Milestone[]): number {
  return Math.min(...milestones.map(({ accuracy }) => accuracy));
}

function aheadNote(milestones: readonly Milestone[]): string {
  const behind = notAhead(milestones, 0).filter((step) => step > 0);
  if (behind.length === 0) return "With batch norm is ahead at every point recorded.";
  return `With batch norm is ahead at every point recorded but ${behind.map(count).join(", ")}.`;
}

function figure(value: string, label: string, kind: string): string {
  return `<li class="${kind}"><strong>${value}</strong> ${label}</li>`;
}

function table(ways: readonly Way[]): string {
  const rows = ways.map(
    ({ label, accuracy, remark }) =>
      `<tr><th scope="row">${label}</th><td>${percent(accuracy)}</td><td>${remark}</td></tr>`,
  );
  return `<table>
<thead><tr><th scope="col">normalized by</th><th scope="col">accuracy</th><th scope="col"></th></tr></thead>
<tbody>${rows.join("\n")}</tbody></table>`;
}

function estimatesTable(estimates: readonly Estimate[]): string {
  const rows = estimates.map(
    ({ label, plain, shifted, remark }) =>
      `<tr><th scope="row">${label}</th><td>${percent(plain)}</td><td>${percent(shifted)}</td><td>${remark}</td></tr>`,
  );
  return `<table class="estimates">
<thead><tr><th scope="col">statistics</th><th scope="col">plain</th><th scope="col">shifted</th><th scope="col"></th></tr></thead>
<tbody>${rows.join("\n")}</tbody></table>`;
}

/** What `diagnose` says, each line by itself, so that what does not fit goes on under its value. */
function diagnosed({ text }: Diagnosed): string {
  const lines = text.split("\n").map((line) => `<span>${escapeHtml(line)}</span>`);
  return `<pre class="diagnosis">${lines.join("")}</pre>`;
}

function plot({ wide, narrow }: Plot, caption: string): string {
  return `<figure>
<div class="wide">${wide}</div>
<div class="narrow">${narrow}</div>
<figcaption>${caption}</figcaption>
</figure>`;
}

function count(n: number): string {
  return n.toLocaleString("en-US");
}

/** `2.3e−9`, which does not break at the end of a line. */
function power(value: number): string {
  return value.toExponential(1).replace("-", "−");
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c] as string);
}

const STYLE = `
:root {
  color-scheme: light dark;
  --paper: #fff; --ink: #1d2129; --soft: #5b6472; --line: #d5d9e0;
  --with: #1f66d0; --without: #c2510c; --batch: #7a8494;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --ink: #e4e7ec; --soft: #a0a8b5; --line: #3a414c;
    --with: #6ea8ff; --without: #ff9b57; --batch: #8d97a7;
  }
}
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
main { box-sizing: border-box; max-width: 728px; margin: 0 auto; padding: 24px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 12px; text-wrap: balance; }
h2 { font-size: 20px; margin: 36px 0 8px; }
p { margin: 8px 0; }
cite { font-style: normal; }
.figures { list-style: none; margin: 20px 0 0; padding: 0; display: grid; gap: 12px;
  grid-template-columns: repeat(3, 1fr); }
.figures li { border-top: 3px solid; padding-top: 8px; font-size: 14px; line-height: 1.35;
  color: var(--soft); }
.figures strong { display: block; font-size: 26px; line-height: 1.2; color: var(--ink); }
.figures .with { border-color: var(--with); }
.figures .without { border-color: var(--without); }
.figures .batch { border-color: var(--batch); }
figure { margin: 16px 0 0; }
figure svg { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: 14px; line-height: 1.4; margin-top: 6px; }
.narrow { display: none; }
table { border-collapse: collapse; width: 100%; font-size: 14px; line-height: 1.35; margin: 16px 0; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line);
  vertical-align: baseline; }
th[scope="row"] { font-weight: normal; white-space: nowrap; }
td:nth-child(2), .estimates td:nth-child(3) { font-variant-numeric: tabular-nums; white-space: nowrap; font-weight: 600; }
td:last-child { color: var(--soft); padding-right: 0; }
pre { overflow-x: auto; font-size: 13px; line-height: 1.4; border-left: 3px solid var(--line);
  padding-left: 12px; margin: 12px 0; white-space: pre-wrap; }
.diagnosis span { display: block; padding-left: 22ch; text-indent: -22ch; }
.diagnosis span:first-child { padding-left: 0; text-indent: 0; }
.digits img { display: block; width: 100%; max-width: 420px; margin-bottom: 4px; }
footer { margin-top: 40px; border-top: 1px solid var(--line); color: var(--soft); font-size: 14px; }
footer h2 { font-size: 16px; margin-top: 16px; }
@media (max-width: 719px) {
  main { padding: 16px 16px 24px; max-width: 420px; }
  h1 { font-size: 24px; }
  .wide { display: none; }
  .narrow { display: block; }
  thead { display: none; }
  tr { display: grid; grid-template-columns: 1fr auto; column-gap: 12px; border-bottom: 1px solid var(--line);
    padding: 6px 0; }
  th, td { border: 0; padding: 0; }
  td:last-child { grid-column: 1 / -1; }
  .estimates thead { display: block; }
  .estimates tr { grid-template-columns: 1fr 63px 63px; column-gap: 8px; }
  .estimates th[scope="row"] { white-space: normal; }
  .estimates th:nth-child(n + 2), .estimates td:nth-child(-n + 3) { text-align: right; }
  .estimates th:last-child { display: none; }
  pre { font-size: 12px; }
  .figures { grid-template-columns: 1fr; }
  .figures li { display: grid; grid-template-columns: 104px 1fr; align-items: center; gap: 8px; }
  .figures strong { font-size: 22px; }
}
`;

function page(title: string, body: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>${STYLE}</style>
</head>
<body>
<main>${body}</main>
</body>
</html>
`;
}
