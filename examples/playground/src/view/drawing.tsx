/** Where one draws: with a pointer, or with the arrow keys and the space bar. */

import { useSignal, useSignalEffect } from "@preact/signals";
import { useRef } from "preact/hooks";
import { PIXELS } from "../../../mnist/digits.js";
import {
  blank,
  choose,
  clear,
  draw,
  endStroke,
  example,
  examples,
  finished,
  input,
  strokes,
} from "../state.js";
import type { Point } from "../strokes.js";
import { theme } from "./theme.js";

const SIDE = 28;
/** How far an arrow key moves the pen, as a part of the side. */
const STRIDE = 1 / 40;
/** Width of the line, as a part of the side. */
const LINE = 0.065;
const ARROWS: Readonly<Record<string, Point>> = {
  ArrowLeft: { x: -1, y: 0 },
  ArrowRight: { x: 1, y: 0 },
  ArrowUp: { x: 0, y: -1 },
  ArrowDown: { x: 0, y: 1 },
};

/** Grey values, 0 … 1, as a picture of ink on paper. */
function paint(canvas: HTMLCanvasElement, values: ArrayLike<number>, most: number): void {
  const context = canvas.getContext("2d") as CanvasRenderingContext2D;
  const [r, g, b] = (getComputedStyle(canvas).color.match(/\d+/g) ?? []).map(Number);
  const pixels = context.createImageData(SIDE, SIDE);
  for (let i = 0; i < PIXELS; i++) {
    pixels.data.set([r, g, b, Math.round((255 * values[i]) / most)], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
}

/** 28 × 28 grey values. */
export function Picture({ values, most }: { values: ArrayLike<number>; most: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const painted = useSignal<ArrayLike<number>>(values);
  painted.value = values;
  useSignalEffect(() => {
    const shown = painted.value;
    theme.value; // the ink has another colour in the dark
    if (canvas.current) paint(canvas.current, shown, most);
  });
  return <canvas class="picture" ref={canvas} width={SIDE} height={SIDE} />;
}

export function Drawing() {
  const area = useRef<HTMLDivElement>(null);
  /** The pointer that draws. */
  const pointer = useRef<number | null>(null);
  const pen = useSignal<Point>({ x: 0.5, y: 0.3 });
  const penDown = useSignal(false);
  const keyboard = useSignal(false);
  const held = useRef(new Set<string>());

  const at = (event: PointerEvent): Point => {
    const box = (area.current as HTMLDivElement).getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  };
  const begin = (point: Point) => draw([...strokes.value, [point]]);
  const extend = (points: readonly Point[]) => {
    const all = strokes.value;
    draw([...all.slice(0, -1), [...(all.at(-1) ?? []), ...points]]);
  };
  const liftPen = () => {
    if (!penDown.value) return;
    penDown.value = false;
    endStroke();
  };
  const clearAll = () => {
    penDown.value = false;
    clear();
  };

  const onPointerDown = (event: PointerEvent) => {
    if (event.button !== 0 || pointer.current !== null) return;
    keyboard.value = false;
    liftPen();
    pointer.current = event.pointerId;
    area.current?.setPointerCapture(event.pointerId);
    begin(at(event));
  };
  const onPointerMove = (event: PointerEvent) => {
    if (event.pointerId !== pointer.current) return;
    const between = event.getCoalescedEvents?.() ?? [];
    extend((between.length > 0 ? between : [event]).map(at));
  };
  const onPointerEnd = (event: PointerEvent) => {
    if (event.pointerId !== pointer.current) return;
    pointer.current = null;
    endStroke();
  };

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in ARROWS) {
      held.current.add(event.key);
      const move = { x: 0, y: 0 };
      for (const key of held.current) {
        move.x += ARROWS[key].x;
        move.y += ARROWS[key].y;
      }
      const inside = (v: number) => Math.min(0.97, Math.max(0.03, v));
      const { x, y } = pen.value;
      pen.value = { x: inside(x + STRIDE * move.x), y: inside(y + STRIDE * move.y) };
      if (penDown.value) extend([pen.value]);
    } else if (event.key === " ") {
      if (event.repeat) return event.preventDefault();
      if (penDown.value) liftPen();
      else {
        penDown.value = true;
        begin(pen.value);
      }
    } else if (event.key === "Backspace" || event.key === "Delete") clearAll();
    else return;
    keyboard.value = true;
    event.preventDefault();
  };

  return (
    <div class="drawing">
      <div
        ref={area}
        class="paper"
        role="application"
        aria-label="Drawing area"
        aria-describedby="drawing-help"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: one draws in it, by keyboard too
        tabIndex={0}
        onPointerDown={onPointerDown}
        onPointerMove={onPointerMove}
        onPointerUp={onPointerEnd}
        onPointerCancel={onPointerEnd}
        onKeyDown={onKeyDown}
        onKeyUp={(event) => held.current.delete(event.key)}
        onFocus={() => {
          keyboard.value = pointer.current === null;
        }}
        onBlur={() => {
          held.current.clear();
          keyboard.value = false;
          liftPen();
        }}
      >
        <svg viewBox="0 0 1 1" aria-hidden="true">
          {example.value && (
            <foreignObject x="0" y="0" width="1" height="1">
              <Picture values={example.value.image} most={255} />
            </foreignObject>
          )}
          {strokes.value.map((stroke, index) => (
            <polyline
              key={index}
              points={[...stroke, stroke[stroke.length - 1]]
                .map(({ x, y }) => `${x},${y}`)
                .join(" ")}
              stroke-width={LINE}
            />
          ))}
          {keyboard.value && (
            <path
              class={penDown.value ? "pen down" : "pen"}
              d={`M${pen.value.x - 0.05},${pen.value.y}h0.1m-0.05,-0.05v0.1`}
            />
          )}
          {blank.value && (
            <text x="0.5" y="0.52">
              Draw a digit here
            </text>
          )}
        </svg>
      </div>
      <div class="below">
        <figure class="seen">
          <Picture values={input.value} most={1} />
          <figcaption>What the network sees</figcaption>
        </figure>
        <div class="buttons">
          <button
            type="button"
            onClick={() => {
              draw(strokes.value.slice(0, -1));
              finished.value++;
            }}
          >
            Undo
          </button>
          <button type="button" onClick={clearAll}>
            Clear
          </button>
        </div>
      </div>
      <fieldset class="examples">
        <legend>Or take one that the network has never seen:</legend>
        {examples.value.map((one) => (
          <button
            type="button"
            key={one.label}
            aria-label={`Example: a handwritten ${one.label}`}
            aria-pressed={example.value?.label === one.label}
            onClick={() => choose(one)}
          >
            <Picture values={one.image} most={255} />
          </button>
        ))}
      </fieldset>
      <p class="hint" id="drawing-help">
        By keyboard: arrow keys move the pen, the space bar puts it down and lifts it, Delete
        clears.
      </p>
    </div>
  );
}
