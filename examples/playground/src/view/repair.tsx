/** Shifted data: what `diagnose` says, and what `calibrate` and `adapt` do about it. */

import { useMemo } from "preact/hooks";
import type uPlot from "uplot";
import { ADAPTATION } from "../lab.js";
import {
  adapt,
  calibrate,
  calibrating,
  examination,
  layer,
  model,
  repaired,
  undo,
  YOUNG,
  YOUNG_DECAY,
  young,
} from "../state.js";
import { Choice, ContrastSlider, percent } from "./controls.js";
import { LAYERS } from "./layer.js";
import { atLeast, axes, BASE, dots, Plot, type PlotOptions } from "./plot.js";
import type { Theme } from "./theme.js";

const UNITS = { x: { time: false, range: [-1, 100] as [number, number] } };
const bound = (stroke: string): uPlot.Series => ({
  stroke,
  width: 1,
  dash: [4, 4],
  points: { show: false },
});

const driftOptions =
  (adapted: boolean) =>
  (theme: Theme, small: boolean): PlotOptions => ({
    ...BASE,
    scales: { ...UNITS, y: atLeast(-2, 2) },
    axes: axes(theme, "unit"),
    series: [
      {},
      bound(theme.soft),
      bound(theme.soft),
      dots(adapted ? theme.adapted : theme.running, small ? 3.5 : 5),
    ],
  });
const ratioOptions =
  (adapted: boolean) =>
  (theme: Theme, small: boolean): PlotOptions => ({
    ...BASE,
    scales: { ...UNITS, y: { distr: 3, log: 2, ...atLeast(1 / 8, 8, 0) } },
    axes: axes(theme, "unit", {
      values: (_plot, splits) =>
        splits.map((v) => (v === null ? "" : v < 1 ? `1/${Math.round(1 / v)}` : String(v))),
    }),
    series: [
      {},
      bound(theme.soft),
      bound(theme.soft),
      dots(adapted ? theme.adapted : theme.running, small ? 3.5 : 5),
    ],
  });
const OPTIONS = [false, true].map((adapted) => ({
  drift: driftOptions(adapted),
  ratio: ratioOptions(adapted),
}));

export function ShiftSection() {
  const found = examination.value?.layers[layer.value];
  const adapted = model.value?.adapted != null;
  return (
    <section aria-labelledby="shift">
      <h2 id="shift">When the world changes</h2>
      <p class="prose">
        Running averages are a memory of the training data. Lower the contrast, as another camera in
        poor light would, and they no longer fit: the answers get worse. <code>diagnose</code> says
        so. Below, each dot is a unit, which <code>diagnose</code> calls a channel. Between the
        dashed lines, a unit’s averages fit well enough. Both repairs stop a training that is
        running.
      </p>
      <div class="controls">
        <ContrastSlider id="contrast-again" />
        <Choice name="drift-layer" legend="Layer" value={layer} options={LAYERS} />
      </div>
      <div class="repairs">
        <div class="repair">
          <button
            type="button"
            id="adapt"
            class="primary"
            onClick={adapt}
            aria-describedby="adapt-help"
          >
            Adapt
          </button>
          <p id="adapt-help">
            when the world has changed: blends the averages with the statistics of{" "}
            {ADAPTATION.targets} unlabelled digits at this contrast
          </p>
        </div>
        <div class="repair">
          <button
            type="button"
            id="calibrate"
            onClick={calibrate}
            aria-describedby="calibrate-help"
          >
            {calibrating.value === null
              ? "Calibrate"
              : `Calibrating, ${Math.round(100 * calibrating.value)} %`}
          </button>
          <p id="calibrate-help">
            when the averages are too young or too noisy: the exact statistics of all training
            digits take their place. Try it on{" "}
            <button type="button" class="link" onClick={young}>
              a new network after {YOUNG} mini-batches
            </button>{" "}
            with decay {YOUNG_DECAY}
          </p>
        </div>
      </div>
      <Outcome />
      {found && (
        <p class="diagnosis">
          <span class={`verdict ${found.verdict}`}>{found.verdict}</span> {found.advice}
          {adapted && " (What is left after adapt; the layer’s own averages are as they were.)"}
        </p>
      )}
      {found && <Plots found={found} adapted={adapted} />}
    </section>
  );
}

function Outcome() {
  const found = examination.value;
  const effect = repaired.value;
  if (effect === null) {
    return (
      <p class="outcome" role="status">
        Right answers now: <strong>{found ? percent(found.adapted ?? found.running) : "…"}</strong>
      </p>
    );
  }
  return (
    <p class="outcome" role="status">
      Right answers at {effect.contrast} % contrast, before and after <code>{effect.action}</code>:{" "}
      <strong>{percent(effect.before)}</strong> <span aria-hidden="true">→</span>
      <span class="hidden">then</span>{" "}
      <strong class={effect.action}>{percent(effect.after)}</strong>{" "}
      <button
        type="button"
        onClick={() => {
          // This button goes; whoever pressed it by keyboard is led back.
          document.getElementById(effect.action)?.focus();
          undo();
        }}
      >
        Undo {effect.action}
      </button>
    </p>
  );
}

interface PlotsProps {
  readonly found: { readonly meanDrift: Float64Array; readonly varianceRatio: Float64Array };
  readonly adapted: boolean;
}

function Plots({ found, adapted }: PlotsProps) {
  const data = useMemo((): { drift: uPlot.AlignedData; ratio: uPlot.AlignedData } => {
    const x = Array.from(found.meanDrift.keys());
    const all = (value: number) => x.map(() => value);
    return {
      drift: [x, all(-0.5), all(0.5), Array.from(found.meanDrift)],
      ratio: [x, all(0.5), all(2), Array.from(found.varianceRatio)],
    };
  }, [found]);
  const { drift, ratio } = OPTIONS[adapted ? 1 : 0];
  return (
    <div class="pair">
      <Plot
        caption="Running mean, off by so many standard deviations"
        label="How far each unit’s running mean is from the held-out digits, in standard deviations."
        height={260}
        options={drift}
        data={data.drift}
      />
      <Plot
        caption="Running variance, off by a factor of"
        label="Each unit’s running variance, divided by that of the held-out digits."
        height={260}
        options={ratio}
        data={data.ratio}
      />
    </div>
  );
}
