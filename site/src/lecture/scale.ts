// From values to places in a picture.

import { onBeforeUnmount, onMounted, type Ref, ref } from "vue";

export interface Scale {
  (value: number): number;
  /** The value at a place. */
  invert(place: number): number;
  readonly ticks: readonly number[];
}

/** A linear scale. Values beyond its ends stay at the ends. */
export function linear(
  [low, high]: readonly [number, number],
  [from, to]: readonly [number, number],
  count = 5,
): Scale {
  const place = (value: number): number =>
    from + ((Math.min(high, Math.max(low, value)) - low) / (high - low)) * (to - from);
  return Object.assign(place, {
    invert: (at: number) =>
      Math.min(high, Math.max(low, low + ((at - from) / (to - from)) * (high - low))),
    ticks: ticksOf(low, high, count),
  });
}

/** Round numbers between two others, about as many as asked for: steps are 1, 2 or 5 times a power of ten. */
function ticksOf(low: number, high: number, count: number): number[] {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * (rough / power >= 5 ? 5 : rough / power >= 2 ? 2 : 1);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)),
  );
}

/** The width of an element, in pixels, so that texts of a picture keep their size on a phone. */
export function useWidth(element: Ref<HTMLElement | undefined>): Ref<number> {
  const width = ref(640);
  let observer: ResizeObserver | undefined;
  onMounted(() => {
    observer = new ResizeObserver(([entry]) => {
      width.value = Math.max(240, Math.round(entry!.contentRect.width));
    });
    observer.observe(element.value!);
  });
  onBeforeUnmount(() => observer?.disconnect());
  return width;
}
