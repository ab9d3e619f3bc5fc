// Tables and texts for a terminal.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { notesOn } from "../../src/command/notes.js";
import { tableOf } from "../../src/command/table.js";
import {
  hasColours,
  paintOf,
  progressOn,
  widthOf as terminalWidth,
} from "../../src/command/terminal.js";
import { counted, plain, short, shorten, size, tidy, wrap } from "../../src/command/text.js";
import { check } from "../support/property.js";

describe("tables", () => {
  const columns = [
    { title: "name", cells: ["a", "layer1.0.downsample.1"], flexible: true },
    { title: "channels", cells: ["8", "1024"], align: "right" },
    { title: "variance", cells: ["0 … 1", "2"], optional: true },
  ] as const;

  test("columns as wide as their cells, numbers at the right", () => {
    expect(tableOf(columns, Infinity)).toEqual([
      "name                   channels  variance",
      "a                             8  0 … 1",
      "layer1.0.downsample.1      1024  2",
    ]);
  });

  test("too narrow: optional columns go first, then names lose their middle", () => {
    expect(tableOf(columns, 40)).toEqual([
      "name                   channels",
      "a                             8",
      "layer1.0.downsample.1      1024",
    ]);
    expect(tableOf(columns, 24)).toEqual([
      "name            channels",
      "a                      8",
      "layer…sample.1      1024",
    ]);
  });

  test("no line is longer than the width, wherever that can be", () => {
    const cells = fc.array(fc.string({ maxLength: 60 }), { minLength: 1, maxLength: 5 });
    check(
      fc.property(cells, fc.integer({ min: 30, max: 120 }), (names, width) => {
        const lines = tableOf(
          [
            { title: "name", cells: names, flexible: true },
            { title: "channels", cells: names.map((name) => String(name.length)), align: "right" },
            { title: "more", cells: names, optional: true },
          ],
          width,
        );
        expect(lines).toHaveLength(names.length + 1);
        for (const line of lines) expect(line.length).toBeLessThanOrEqual(width);
      }),
      300,
    );
  });
});

describe("texts", () => {
  test("numbers without the digits of a rounding", () => {
    expect([tidy(Math.fround(1e-5)), tidy(1 - 0.9), tidy(Math.fround(1e-3))]).toEqual([
      1e-5, 0.1, 1e-3,
    ]);
    expect([1e-5, 0.001, 0, 12.3456, -2e-9, 3e6].map((n) => short(n, 3))).toEqual([
      "1e-5",
      "0.001",
      "0",
      "12.3",
      "-2e-9",
      "3e6",
    ]);
    expect([size(3), size(1500), size(2.5e6), size(7e9)]).toEqual([
      "3 bytes",
      "1.5 kB",
      "2.5 MB",
      "7.0 GB",
    ]);
    expect([counted(1, "layer"), counted(1234, "layer")]).toEqual(["1 layer", "1,234 layers"]);
  });

  test("a name cannot command the terminal", () => {
    expect(plain("a\u001b[31mb\u202e\u0007\u009b\nc é 層")).toBe(
      "a\\u001b[31mb\\u202e\\u0007\\u009b\\u000ac é 層",
    );
  });

  test("shortened texts keep both ends", () => {
    expect(shorten("0123456789", 10)).toBe("0123456789");
    expect(shorten("0123456789", 6)).toBe("01…789");
    check(
      fc.property(fc.string(), fc.integer({ min: 3, max: 30 }), (text, width) => {
        expect(shorten(text, width).length).toBe(Math.min(text.length, width));
      }),
      200,
    );
  });

  test("wrapped texts lose no word, and no line is too long", () => {
    const words = fc.array(fc.stringMatching(/^[a-z]{1,9}$/), { minLength: 1, maxLength: 30 });
    check(
      fc.property(words, fc.integer({ min: 14, max: 40 }), (list, width) => {
        const text = wrap(list.join(" "), width, "    ");
        expect(text.split(/\s+/)).toEqual(list);
        for (const line of text.split("\n")) expect(line.length).toBeLessThanOrEqual(width);
      }),
      200,
    );
    expect(wrap("one two three", Infinity)).toBe("one two three");
  });

  test("what the reader says of many layers is said once", () => {
    const layers = ["a", "b", "c"].map((name) => ({
      name,
      warnings: [`layer "${name}": has renorm`, ...(name === "b" ? ["other"] : [])],
    }));
    expect(notesOn(layers)).toEqual(["a and 2 other layers: has renorm", "b: other"]);
  });
});

describe("the terminal", () => {
  const write = (): boolean => true;

  test("its width; of files and pipes COLUMNS, or no end", () => {
    expect(terminalWidth({ write, isTTY: true, columns: 132 }, {})).toBe(132);
    expect(terminalWidth({ write, isTTY: true, columns: 20 }, {})).toBe(40);
    expect(terminalWidth({ write }, { COLUMNS: "80" })).toBe(80);
    for (const COLUMNS of [undefined, "", "wide", "0", "-3"]) {
      expect(terminalWidth({ write }, { COLUMNS })).toBe(Infinity);
    }
  });

  test("colours only where it has them", () => {
    expect(hasColours({ write })).toBe(false);
    expect(hasColours({ write, isTTY: true, hasColors: () => false })).toBe(false);
    expect(hasColours({ write, isTTY: true, hasColors: () => true })).toBe(true);
    expect(paintOf(false).red("x")).toBe("x");
    expect(paintOf(true).red("x")).toBe("\x1b[31mx\x1b[39m");
  });

  test("a long work says how far it is, on a terminal alone, and leaves nothing", () => {
    for (const isTTY of [true, false]) {
      let time = 0;
      let written = "";
      const keep = (text: string): boolean => {
        written += text;
        return true;
      };
      const stream = { isTTY, columns: 80, write: keep };
      const progress = progressOn(stream as never, () => time);
      progress.show("reading x", 0);
      time = 300;
      progress.show("reading x", 0.1);
      expect(written).toBe("");
      for (const part of [0.5, 0.501, 0.75]) {
        time += part === 0.501 ? 1 : 200;
        progress.show("reading x", part);
      }
      progress.clear();
      const lines = "\r\x1b[2Kreading x 50 %\r\x1b[2Kreading x 75 %\r\x1b[2K";
      expect(written).toBe(isTTY ? lines : "");
      progress.clear();
      expect(written).toBe(isTTY ? lines : "");
    }
  });
});
