/** Lines in an SVG, drawn anew while the values come in. */

const NAMESPACE = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, MARGIN] = [600, 200, 6];

/** Draws each of `lines` over `steps`, which go up to `last`; the highest and the lowest value stand at the side. */
export function polylines(
  svg: SVGElement,
  steps: readonly number[],
  lines: readonly (readonly number[])[],
  last: number,
): void {
  const all = lines.flat();
  const [low, high] = [Math.min(0, ...all), Math.max(...all)];
  const x = (step: number) => (WIDTH * step) / last;
  const y = (value: number) =>
    MARGIN + (HEIGHT - 2 * MARGIN) * (1 - (value - low) / (high - low || 1));
  const drawn = lines.map((line, i) => {
    const element = document.createElementNS(NAMESPACE, "polyline");
    element.setAttribute(
      "points",
      line.map((v, k) => `${x(steps[k]).toFixed(1)},${y(v).toFixed(1)}`).join(" "),
    );
    element.style.setProperty("--line", String(i));
    return element;
  });
  const texts = [high, low].map((value) => {
    const text = document.createElementNS(NAMESPACE, "text");
    text.textContent = value.toFixed(2);
    text.setAttribute("x", String(WIDTH - 4));
    text.setAttribute("y", String(value === high ? 18 : HEIGHT - 8));
    return text;
  });
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.replaceChildren(...drawn, ...texts);
}
