/** Sliders and choices. */

import type { Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { contrast } from "../state.js";

interface SliderProps {
  readonly id: string;
  readonly label: string;
  readonly value: Signal<number>;
  /** The values it can have, in order. */
  readonly values: readonly number[];
  readonly show: (value: number) => string;
  readonly hint?: ComponentChildren;
}

/** A slider over a list of values. */
export function Slider({ id, label, value, values, show, hint }: SliderProps) {
  return (
    <div class="slider">
      <label for={id}>{label}</label>
      <output for={id}>{show(value.value)}</output>
      <input
        id={id}
        type="range"
        min={0}
        max={values.length - 1}
        step={1}
        value={values.indexOf(value.value)}
        aria-valuetext={show(value.value)}
        aria-describedby={hint ? `${id}-hint` : undefined}
        onInput={(event) => {
          value.value = values[Number(event.currentTarget.value)];
        }}
      />
      {hint && (
        <p class="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
    </div>
  );
}

interface ChoiceProps<T extends string | number> {
  readonly name: string;
  readonly legend: string;
  readonly value: Signal<T>;
  readonly options: readonly { readonly value: T; readonly label: string }[];
}

/** One of a few, as radio buttons side by side. */
export function Choice<T extends string | number>({
  name,
  legend,
  value,
  options,
}: ChoiceProps<T>) {
  return (
    <fieldset class="choice">
      <legend>{legend}</legend>
      <div class="options">
        {options.map((option) => (
          <label key={option.value}>
            <input
              type="radio"
              name={name}
              checked={value.value === option.value}
              onChange={() => {
                value.value = option.value;
              }}
            />
            <span>{option.label}</span>
          </label>
        ))}
      </div>
    </fieldset>
  );
}

const CONTRASTS = Array.from({ length: 15 }, (_, i) => 30 + 5 * i);

/** The same slider in two places. */
export function ContrastSlider({ id, hint }: { id: string; hint?: string }) {
  return (
    <Slider
      id={id}
      label="Contrast of the input"
      value={contrast}
      values={CONTRASTS}
      show={(value) => `${value} %`}
      hint={hint}
    />
  );
}

export const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
