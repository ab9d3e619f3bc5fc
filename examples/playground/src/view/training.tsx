/** The page trains the network in a worker, and the running averages settle. */

import { useMemo } from "preact/hooks";
import {
  busy,
  course,
  DECAYS,
  decay,
  finishedTraining,
  history,
  layer,
  loss,
  own,
  play,
  playing,
  restart,
  restore,
  SPEEDS,
  type Speed,
  speed,
  step,
  stepOnce,
  stop,
  unit,
} from "../state.js";
import { Choice, Slider } from "./controls.js";
import { LAYERS } from "./layer.js";
import { atLeast, axes, BASE, dots, Plot, type PlotOptions } from "./plot.js";
import type { Theme } from "./theme.js";

const UNITS = Array.from({ length: 100 }, (_, i) => i);

const settling = (theme: Theme): PlotOptions => ({
  ...BASE,
  scales: { x: { time: false, ...atLeast(0, 50, 0) } },
  axes: axes(theme, "mini-batches"),
  series: [
    {},
    { ...dots(theme.batch, 4), alpha: 0.55 },
    { stroke: theme.running, width: 2.5, points: { show: false } },
  ],
});

const courseOptions = (theme: Theme): PlotOptions => ({
  ...BASE,
  scales: { x: { time: false, ...atLeast(0, 50, 0) }, y: { range: [0, 100] } },
  axes: axes(theme, "mini-batches"),
  series: [
    {},
    { stroke: theme.batch, width: 1.5, points: { show: true, size: 4, fill: theme.batch } },
    { stroke: theme.running, width: 2.5, points: { show: true, size: 4, fill: theme.running } },
  ],
});

export function TrainingSection() {
  return (
    <section aria-labelledby="training">
      <h2 id="training">Where the averages come from</h2>
      <p class="prose">
        With every mini-batch that the network trains on, each unit’s average moves a little towards
        what that mini-batch says: <span class="formula">v ← decay · v + (1 − decay) · new</span>.{" "}
        <span class="mark batch">Dots</span> are mini-batches of 60 out of 4,000 digits,{" "}
        <span class="mark running">the line</span> is the running average, which begins at mean 0
        and variance 1. A small decay follows every accident; a large one is calm, but remembers its
        start, and the young network, for long. Training itself does not depend on the decay, so the
        slider shows what the averages would have been.
      </p>
      <div class="controls">
        <Buttons />
        <Choice
          name="speed"
          legend="Speed"
          value={speed}
          options={Object.entries(SPEEDS).map(([value, { label }]) => ({
            value: value as Speed,
            label,
          }))}
        />
        <Slider id="decay" label="Decay" value={decay} values={DECAYS} show={String} />
        <Choice name="watched-layer" legend="Watch" value={layer} options={LAYERS} />
        <Slider id="unit" label="Unit" value={unit} values={UNITS} show={(u) => String(u + 1)} />
      </div>
      <Status />
      <Plots />
    </section>
  );
}

/** None of them comes or goes: whoever is at one by keyboard stays there. */
function Buttons() {
  const label = playing.value ? "Pause" : own.value ? "Train on" : "Train the trained network on";
  const changed = own.value || step.value > 0;
  return (
    <div class="buttons">
      <button
        type="button"
        class={own.value ? "" : "primary"}
        onClick={async () => {
          await restart();
          await play();
        }}
      >
        Train a new network
      </button>
      <button
        type="button"
        class={own.value ? "primary" : ""}
        aria-disabled={finishedTraining.value}
        onClick={() => (playing.value ? stop() : play())}
      >
        {label}
      </button>
      <button
        type="button"
        aria-disabled={playing.value || finishedTraining.value}
        onClick={() => !playing.value && stepOnce()}
      >
        One step
      </button>
      <button type="button" aria-disabled={!changed} onClick={() => changed && restore()}>
        Back to the trained network
      </button>
    </div>
  );
}

function Status() {
  const latest = course.value.at(-1);
  const parts = [
    own.value ? "A new network" : "The network as the demo trained it",
    step.value > 0 ? `${step.value} mini-batches here` : null,
    loss.value === null ? null : `loss ${loss.value.toFixed(3)}`,
    latest ? `${(100 * latest.running).toFixed(1)} % right by running averages` : null,
    finishedTraining.value ? "that is as far as this page trains" : null,
  ];
  return (
    <p class="status" aria-busy={busy.value}>
      {parts.filter((part) => part !== null).join(" · ")}
    </p>
  );
}

function Plots() {
  const past = history.value;
  const examined = course.value;
  const data = useMemo(
    () => ({
      mean: past ? [past.step, past.mean, past.runningMean] : [[], [], []],
      variance: past ? [past.step, past.variance, past.runningVariance] : [[], [], []],
      course: [
        examined.map((one) => one.step),
        examined.map((one) => 100 * one.miniBatch),
        examined.map((one) => 100 * one.running),
      ],
    }),
    [past, examined],
  );
  const empty = step.value === 0 && "Train a network, and watch.";
  const name = `Unit ${unit.value + 1} of layer ${layer.value + 1}`;
  return (
    <div class="three">
      <Plot
        caption={<>Running mean of unit {unit.value + 1}</>}
        label={`${name}: mean of each mini-batch, and the running average.`}
        height={230}
        empty={empty}
        options={settling}
        data={data.mean as uPlot.AlignedData}
      />
      <Plot
        caption={<>Running variance of unit {unit.value + 1}</>}
        label={`${name}: variance of each mini-batch, and the running average.`}
        height={230}
        empty={empty}
        options={settling}
        data={data.variance as uPlot.AlignedData}
      />
      <Plot
        caption={
          <>
            % right by <span class="mark running">averages</span> and by{" "}
            <span class="mark batch">mini-batch</span>
          </>
        }
        label="Right answers on the held-out digits while the network trains."
        height={230}
        empty={empty}
        options={courseOptions}
        data={data.course as uPlot.AlignedData}
      />
    </div>
  );
}
