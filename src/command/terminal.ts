// The terminal: how wide it is, its colours, and a line that says how far a long work has come.

import type { WriteStream } from "node:tty";

/** Functions that colour a text; where there are no colours, they return it as it is. */
export interface Paint {
  readonly bold: (text: string) => string;
  readonly dim: (text: string) => string;
  readonly red: (text: string) => string;
  readonly yellow: (text: string) => string;
}

/** Colours by the escape sequences of ECMA-48 (section 8.3.117, SGR), or none. */
export function paintOf(colours: boolean): Paint {
  const sgr = (on: number, off: number) => (text: string) =>
    colours ? `\x1b[${on}m${text}\x1b[${off}m` : text;
  return { bold: sgr(1, 22), dim: sgr(2, 22), red: sgr(31, 39), yellow: sgr(33, 39) };
}

/** A stream of the process: a terminal, or a file or pipe. */
type Stream = Pick<WriteStream, "write"> & Partial<WriteStream>;

/** How many characters a line may have: what the terminal or COLUMNS says; any number in a file or pipe. */
export function widthOf(stream: Stream, environment: Readonly<Record<string, string | undefined>>) {
  const columns = stream.isTTY ? stream.columns : Number(environment.COLUMNS);
  return columns !== undefined && columns >= 40 ? columns : columns! > 0 ? 40 : Infinity;
}

/** Whether to colour: only a terminal that can, and not where NO_COLOR is set (`hasColors` looks at it). */
export const hasColours = (stream: Stream): boolean =>
  stream.isTTY === true && stream.hasColors?.() === true;

/** Says how far a work has come. */
export interface Progress {
  /** `what` is being done, and a part of it, from 0 to 1, is done already. */
  readonly show: (what: string, part: number) => void;
  /** Takes the line away. */
  readonly clear: () => void;
}

/** Milliseconds after which a work counts as long, and after which its line is written anew. */
const LONG = 400;
const PAUSE = 100;

/** A line on a terminal, which appears when the work takes long. Writes nothing into files and pipes. */
export function progressOn(stream: Stream, now: () => number = Date.now): Progress {
  const start = now();
  let last = start + LONG - PAUSE;
  let shown = false;
  return {
    show(what, part) {
      if (!stream.isTTY || now() - last < PAUSE) return;
      last = now();
      shown = true;
      const line = `${what} ${Math.floor(100 * part)} %`;
      stream.write(`\r\x1b[2K${line.slice(0, (stream.columns ?? 80) - 1)}`);
    },
    clear() {
      if (shown) stream.write("\r\x1b[2K");
      shown = false;
    },
  };
}
