// A table of texts, as wide as a terminal or as its rows.

import { shorten } from "./text.js";

/** A column of a table. */
export interface Column {
  readonly title: string;
  readonly cells: readonly string[];
  /** Numbers are aligned at their ends, words at their beginnings. */
  readonly align?: "left" | "right";
  /** True for a column that may be shortened where the table is too wide. */
  readonly flexible?: boolean;
  /** True for a column that may be left out where the table is too wide even so. */
  readonly optional?: boolean;
}

/** The space between two columns. */
const GAP = "  ";
/** A flexible column is not made narrower than this while there is an optional one to leave out. */
const NARROW = 24;
/** A flexible column is never narrower than this. */
const NARROWEST = 8;

const widthOf = ({ title, cells }: Column): number =>
  cells.reduce((most, cell) => Math.max(most, cell.length), title.length);

/**
 * The lines of a table, the titles first.
 *
 * @param width how many characters a line may have. Infinite where lines may be of any length.
 */
export function tableOf(columns: readonly Column[], width: number): string[] {
  const fitting = [...columns];
  const over = (flexible: number): number => {
    const widths = fitting.map((each) =>
      each.flexible ? Math.min(flexible, widthOf(each)) : widthOf(each),
    );
    return widths.reduce((sum, each) => sum + each + GAP.length, -GAP.length) - width;
  };
  while (over(NARROW) > 0) {
    const last = fitting.findLastIndex(({ optional }) => optional === true);
    if (last < 0) break;
    fitting.splice(last, 1);
  }
  const excess = Math.max(0, over(Infinity));
  const shown = fitting.map((column) => {
    const full = widthOf(column);
    const room = column.flexible ? Math.min(full, Math.max(NARROWEST, full - excess)) : full;
    const pad = (text: string): string =>
      column.align === "right" ? text.padStart(room) : shorten(text, room).padEnd(room);
    return [column.title, ...column.cells].map(pad);
  });
  const rows = shown[0]?.map((_, row) => shown.map((cells) => cells[row]!)) ?? [];
  return rows.map((cells) => cells.join(GAP).trimEnd());
}
