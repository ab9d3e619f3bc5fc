// The result of a measurement: its rows while they are measured, and its text for those who copy it.

import type { Figure, RowTitle, SideName } from "./protocol.js";

export interface Row extends RowTitle {
  readonly figures: Partial<Record<SideName, Figure>>;
}

/** The browser and its system, from its User-Agent. */
export function browserOf(userAgent: string): string {
  const [, system = ""] = /\(([^)]+)\)/.exec(userAgent) ?? [];
  const names = ["Firefox", "Edg", "HeadlessChrome", "Chrome", "Version"];
  for (const name of names) {
    const [, version] = new RegExp(`\\b${name}/(\\d+)`).exec(userAgent) ?? [];
    const called = { Edg: "Edge", HeadlessChrome: "Chrome", Version: "Safari" }[name] ?? name;
    if (version !== undefined) return `${called} ${version} (${system.replace(/; rv:.*/, "")})`;
  }
  return userAgent;
}

/** Where it was measured. */
export interface Place {
  readonly version: string;
  readonly browser: string;
  readonly cores: number;
  readonly isolated: boolean;
  readonly threads: number | undefined;
}

export const NAMES: Readonly<Record<SideName, string>> = {
  one: "this package, one thread",
  several: "this package, several threads",
  loop: "a JavaScript loop",
  tfjs: "TensorFlow.js, wasm",
};

export const nameOf = (side: SideName, threads: number | undefined): string =>
  side === "several" ? `this package, ${threads} threads` : NAMES[side];

/** Microseconds, with three digits. */
export function timeOf(microseconds: number): string {
  if (microseconds >= 1000) return `${(microseconds / 1000).toPrecision(3)} ms`;
  return `${microseconds >= 99.95 ? microseconds.toFixed(0) : microseconds.toPrecision(3)} µs`;
}

/** How many times as long a side takes as this package on one thread: the geometric mean over all rows that have both. */
export function ratioOf(rows: readonly Row[], side: SideName): number | undefined {
  const logs = rows.flatMap(({ figures }) => {
    const [of, one] = [figures[side], figures.one];
    return of && one ? [Math.log(of.median / one.median)] : [];
  });
  if (logs.length === 0) return undefined;
  return Math.exp(logs.reduce((sum, log) => sum + log, 0) / logs.length);
}

/** One sentence for each side that was compared. */
export function sentencesOf(rows: readonly Row[], { threads }: Place): string[] {
  const subjects: readonly (readonly [SideName, string])[] = [
    ["loop", "A JavaScript loop"],
    ["tfjs", "TensorFlow.js on its wasm backend"],
    ["several", `This package on ${threads} threads`],
  ];
  return subjects.flatMap(([side, subject]) => {
    const ratio = ratioOf(rows, side);
    if (ratio === undefined) return [];
    return [`${subject} takes ${ratio.toFixed(2)} times as long as this package on one thread.`];
  });
}

/** The result as a Markdown table. */
export function textOf(rows: readonly Row[], place: Place): string {
  const sides = (Object.keys(NAMES) as SideName[]).filter((side) =>
    rows.some(({ figures }) => figures[side]),
  );
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [
    `batchnorm-wasm ${place.version}, median time of a call`,
    `${place.browser}; ${place.cores} cores; ${place.isolated ? "isolated" : "not isolated"}`,
    "",
    line(["", ...sides.map((side) => nameOf(side, place.threads))]),
    line(["---", ...sides.map(() => "---:")]),
    ...rows.map(({ title, shape, figures }) =>
      line([
        `${title}, ${shape}`,
        ...sides.map((side) => (figures[side] ? timeOf(figures[side].median) : "")),
      ]),
    ),
    "",
    ...sentencesOf(rows, place),
    "",
  ].join("\n");
}
