/** One layer's values for the digit, before and after normalization. */

import { useMemo } from "preact/hooks";
import type uPlot from "uplot";
import { answers, batchSize, layer, model } from "../state.js";
import { Choice } from "./controls.js";
import { atLeast, axes, BASE, dots, Plot, type PlotOptions } from "./plot.js";
import type { Theme } from "./theme.js";

export const LAYERS = [0, 1, 2].map((value) => ({ value, label: `layer ${value + 1}` }));

const UNITS = { x: { time: false, range: [-1, 100] as [number, number] } };

/** What test time uses now. */
type Kind = "running" | "adapted";
const kindNow = (): Kind => (model.value?.adapted == null ? "running" : "adapted");

const before =
  (kind: Kind) =>
  (theme: Theme, small: boolean): PlotOptions => ({
    ...BASE,
    scales: { ...UNITS, y: atLeast(0, 0) },
    axes: axes(theme, "unit, by running mean"),
    series: [
      {},
      { stroke: "transparent", points: { show: false } },
      { stroke: "transparent", points: { show: false } },
      { stroke: theme[kind], width: 1.5, points: { show: false } },
      dots(theme[kind], small ? 3.5 : 5),
      dots(theme.batch, small ? 6 : 9, true),
    ],
    bands: [{ series: [1, 2], fill: theme.band }],
  });

const after =
  (kind: Kind) =>
  (theme: Theme, small: boolean): PlotOptions => ({
    ...BASE,
    scales: { ...UNITS, y: atLeast(-5, 5) },
    axes: axes(theme, "unit, in the same order"),
    series: [{}, dots(theme[kind], small ? 3.5 : 5), dots(theme.batch, small ? 6 : 9, true)],
  });

const OPTIONS = {
  running: { before: before("running"), after: after("running") },
  adapted: { before: before("adapted"), after: after("adapted") },
};

export function LayerSection() {
  const kind = kindNow();
  const n = batchSize.value;
  return (
    <section aria-labelledby="inside">
      <h2 id="inside">Inside a layer</h2>
      <p class="prose">
        Each column is one of a layer’s 100 units, which the package calls channels. Before
        normalization, <span class={`mark ${kind}`}>a dot</span> is what the unit is given for your
        digit, and the <span class="mark band">band is where it usually lies</span>: its {kind}{" "}
        mean, plus and minus one standard deviation. <span class="mark batch">Rings</span> are the
        mean of the mini-batch
        {n === 1
          ? ": of one digit, the digit itself. "
          : n <= 16
            ? `: of ${n} digits, a guess. `
            : `: of ${n} digits, close to the line. `}
        After it, dots are what the layer makes of the digit by {kind} averages, rings by the
        mini-batch.{n === 1 && " The rings stay where they are, whatever you draw: at β."}
      </p>
      <Choice name="layer" legend="Layer" value={layer} options={LAYERS} />
      <Plots />
    </section>
  );
}

function Plots() {
  const both = answers.value;
  const index = layer.value;
  const options = OPTIONS[kindNow()];
  const data = useMemo((): { before: uPlot.AlignedData; after: uPlot.AlignedData } => {
    const running = both?.running.passages[index];
    const miniBatch = both?.miniBatch.passages[index];
    if (!running || !miniBatch) return { before: [[]], after: [[]] };
    const { mean, deviation } = running;
    const order = Array.from(mean, (_, unit) => unit).sort((a, b) => mean[a] - mean[b]);
    const x = order.map((_, i) => i);
    const by = (values: ArrayLike<number>) => order.map((unit) => values[unit]);
    return {
      before: [
        x,
        order.map((unit) => mean[unit] + deviation[unit]),
        order.map((unit) => mean[unit] - deviation[unit]),
        by(mean),
        by(running.before),
        by(miniBatch.mean),
      ],
      after: [x, by(running.after), by(miniBatch.after)],
    };
  }, [both, index]);
  return (
    <div class="pair">
      <Plot
        caption="Before normalization"
        label={`What layer ${index + 1} is given for the digit, unit by unit, with the running mean and standard deviation of each unit.`}
        height={280}
        empty={both === null && "Draw a digit first."}
        options={options.before}
        data={data.before}
      />
      <Plot
        caption="After normalization: γ · x̂ + β"
        label={`What layer ${index + 1} makes of it, by running averages and by mini-batch statistics.`}
        height={280}
        empty={both === null && "Draw a digit first."}
        options={options.after}
        data={data.after}
      />
    </div>
  );
}
