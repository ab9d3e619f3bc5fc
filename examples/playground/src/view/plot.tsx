/** uPlot in the page's colours and at the page's width. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { type Theme, theme } from "./theme.js";

export type PlotOptions = Omit<uPlot.Options, "width" | "height">;

/** Plots that are narrower have smaller points. */
const SMALL = 400;

interface PlotProps {
  readonly caption: ComponentChildren;
  /** For those who do not see it: what is drawn, and what it shows now. */
  readonly label: string;
  readonly height: number;
  /** What stands in the middle while there is nothing to draw. */
  readonly empty?: string | false;
  readonly options: (theme: Theme, small: boolean) => PlotOptions;
  readonly data: uPlot.AlignedData;
}

export function Plot({ caption, label, height, empty = false, options, data }: PlotProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(data);
  const visible = useRef(true);
  const pending = useRef(false);
  const late = useRef(0);
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
    const seen = new IntersectionObserver(
      ([{ isIntersecting }]) => {
        visible.current = isIntersecting;
        if (isIntersecting) drawn.setData(latest.current);
      },
      { rootMargin: "400px" },
    );
    const printing = () => drawn.setData(latest.current);
    addEventListener("beforeprint", printing);
    resized.observe(element);
    seen.observe(element);
    return () => {
      resized.disconnect();
      seen.disconnect();
      clearTimeout(late.current);
      removeEventListener("beforeprint", printing);
      drawn.destroy();
      plot.current = null;
    };
  }, [colours, height, options]);
  // After the next frame, so that an answer is on the screen before the plots behind it are drawn; what
  // is far from the screen a second after the last change, for pictures of the whole page.
  useEffect(() => {
    if (pending.current) return;
    pending.current = true;
    requestAnimationFrame(() =>
      setTimeout(() => {
        pending.current = false;
        const draw = () => plot.current?.setData(latest.current);
        clearTimeout(late.current);
        if (visible.current) draw();
        else late.current = window.setTimeout(draw, 1000);
      }),
    );
  }, [data]);
  return (
    <figure>
      <figcaption>{caption}</figcaption>
      <div class="plot">
        <div role="img" aria-label={label} data-points={data[0].length} ref={place} />
        {empty && <p class="empty">{empty}</p>}
      </div>
    </figure>
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
