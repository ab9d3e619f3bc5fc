/** uPlot in the page's colours and at the page's width. */

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

/** The colours of style.css, by name. */
export interface Theme {
  readonly ink: string;
  readonly soft: string;
  readonly line: string;
  readonly running: string;
  readonly adapted: string;
  readonly batch: string;
  readonly band: string;
}

function themeNow(): Theme {
  const style = getComputedStyle(document.documentElement);
  const of = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return {
    ink: of("ink"),
    soft: of("soft"),
    line: of("line"),
    running: of("running"),
    adapted: of("adapted"),
    batch: of("batch"),
    band: of("band"),
  };
}

const theme = signal(themeNow());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  theme.value = themeNow();
});

export type PlotOptions = Omit<uPlot.Options, "width" | "height">;

/** Plots that are narrower have smaller points. */
const SMALL = 400;

interface PlotProps {
  /** For those who do not see it: what is drawn, and what it shows now. */
  readonly label: string;
  readonly height: number;
  /** What stands in the middle while there is nothing to draw. */
  readonly empty?: string | false;
  readonly options: (theme: Theme, small: boolean) => PlotOptions;
  readonly data: uPlot.AlignedData;
}

export function Plot({ label, height, empty = false, options, data }: PlotProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(data);
  const visible = useRef(true);
  const pending = useRef(false);
  const colours = theme.value;
  latest.current = data;
  useEffect(() => {
    const element = place.current as HTMLDivElement;
    const width = () => Math.max(200, element.clientWidth);
    const drawn = new uPlot(
      { ...options(colours, width() < SMALL), width: width(), height },
      latest.current,
      element,
    );
    plot.current = drawn;
    const resized = new ResizeObserver(() => {
      if (width() !== drawn.width) drawn.setSize({ width: width(), height });
    });
    const seen = new IntersectionObserver(([{ isIntersecting }]) => {
      visible.current = isIntersecting;
      if (isIntersecting) drawn.setData(latest.current);
    });
    resized.observe(element);
    seen.observe(element);
    return () => {
      resized.disconnect();
      seen.disconnect();
      drawn.destroy();
      plot.current = null;
    };
  }, [colours, height, options]);
  // After the next frame, so that an answer is on the screen before the plots behind it are drawn.
  useEffect(() => {
    if (pending.current) return;
    pending.current = true;
    requestAnimationFrame(() =>
      setTimeout(() => {
        pending.current = false;
        if (visible.current) plot.current?.setData(latest.current);
      }),
    );
  }, [data]);
  return (
    <div class="plot">
      <div role="img" aria-label={label} ref={place} />
      {empty && <p class="empty">{empty}</p>}
    </div>
  );
}

const FONT = '12px "Inter Variable", system-ui, sans-serif';

/** Both axes, with a quiet grid. `y`: what is special about the upright one. */
export function axes({ soft, line }: Theme, label: string, y: uPlot.Axis = {}): uPlot.Axis[] {
  const common: uPlot.Axis = {
    font: FONT,
    stroke: soft,
    grid: { stroke: line, width: 1 },
    ticks: { show: false },
  };
  return [
    { ...common, label, labelFont: FONT, labelSize: 16, labelGap: 0, size: 26 },
    { ...common, size: 40, ...y },
  ];
}

/** What all plots here have in common. */
export const BASE = {
  legend: { show: false },
  cursor: { show: false },
  padding: [8, 14, 0, 0] as [number, number, number, number],
};

/** Points that no line connects; `hollow`: rings. */
export function dots(stroke: string, size: number, hollow = false): uPlot.Series {
  const fill = hollow ? "transparent" : stroke;
  return {
    stroke,
    paths: () => null,
    points: { show: true, size, fill, stroke, width: hollow ? 1.25 : 0 },
  };
}

/** A scale that shows at least `low` to `high`, and a little more than the data need. */
export const atLeast = (low: number, high: number, more = 0.04): uPlot.Scale => ({
  range: (_plot, least, most) => {
    const [bottom, top] = [Math.min(low, least ?? low), Math.max(high, most ?? high)];
    const room = more * (top - bottom);
    return [least < low ? bottom - room : bottom, most > high ? top + room : top];
  },
});
