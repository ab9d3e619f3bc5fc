import { signal } from "@preact/signals";

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

/** The colours now, in light or in dark. */
export const theme = signal(themeNow());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  theme.value = themeNow();
});
