// The house: which floor of src/ may know which, that nothing goes in circles, and how long a file may be.
// docs/architecture.md says what each floor is for.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));

/** From the lowest to the highest. A file imports its own floor and lower ones; those side by side, not each other. */
const FLOORS: readonly (readonly string[])[] = [
  ["errors"],
  ["values", "wasm"],
  ["engine"],
  ["frozen", "threads"],
  ["layer"],
  ["testtime"],
  ["state", "tfjs"],
  ["doors"],
  // What it does users can do as well: it imports only what they can import, and one function that tells formats apart.
  ["command"],
];

/** Lines that a file may have at most. */
const LINES = 350;

const filesOf = (folder: string): string[] =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts") && !name.endsWith("-text.ts"))
    .map((name) => join(folder, name))
    .sort();

const read = (file: string): string => readFileSync(join(root, file), "utf8");

/** The room of a file: a folder of src/, `errors`, or `doors` for all other files directly in it. */
function roomOf(file: string): string {
  const [, folder, rest] = file.split("/");
  if (rest !== undefined) return folder!;
  return folder === "errors.ts" ? "errors" : "doors";
}

const floorOf = (room: string): number => FLOORS.findIndex((rooms) => rooms.includes(room));

/** The files that a file imports, types included. */
const importsOf = (file: string): string[] =>
  [...read(file).matchAll(/^(?:import|export)\b[^;]*? from "(\.[^"]+)"/gm)]
    .map(([, path]) => normalize(join(dirname(file), path!)).replace(/\.js$/, ".ts"))
    .filter((path) => !path.endsWith("-text.ts") && !path.includes(".wasm"));

const source = filesOf("src");
const imports = new Map(source.map((file) => [file, importsOf(file)]));

/** A way of imports from a file back to itself, if there is one. */
function circleFrom(start: string): string[] | null {
  const seen = new Set<string>();
  const follow = (file: string, way: string[]): string[] | null => {
    for (const next of imports.get(file) ?? []) {
      if (next === start) return [...way, next];
      if (seen.has(next)) continue;
      seen.add(next);
      const circle = follow(next, [...way, next]);
      if (circle) return circle;
    }
    return null;
  };
  return follow(start, [start]);
}

describe("floors", () => {
  test("every folder of src/ is on one", () => {
    expect(source.length).toBeGreaterThan(50);
    for (const file of source) expect(floorOf(roomOf(file)), file).toBeGreaterThanOrEqual(0);
  });

  test.each(source)("%s imports no higher floor and no neighbour", (file) => {
    const room = roomOf(file);
    const wrong = imports.get(file)!.filter((path) => {
      const other = roomOf(path);
      return other !== room && floorOf(other) >= floorOf(room);
    });
    expect(wrong).toEqual([]);
  });

  test("the command imports only what users can import, and the function that tells formats apart", () => {
    const below = [...imports].flatMap(([file, paths]) =>
      roomOf(file) === "command" ? paths : [],
    );
    const rooms = new Set(below.filter((path) => path !== "src/state/format.ts").map(roomOf));
    expect([...rooms].sort()).toEqual(["command", "doors"]);
  });

  test("every import leads to a file", () => {
    for (const [file, paths] of imports) {
      for (const path of paths) expect(source, `${file} imports ${path}`).toContain(path);
    }
  });
});

test.each(source)("%s is in no circle of imports", (file) => {
  expect(circleFrom(file)).toBeNull();
});

test.each([...source, ...filesOf("assembly")])("%s is no longer than it may be", (file) => {
  const lines = read(file).trimEnd().split("\n").length;
  expect(lines).toBeLessThanOrEqual(LINES);
});

describe("docs/architecture.md", () => {
  const text = read("docs/architecture.md");
  /** The part of the page about a folder of src/, or about assembly/. */
  const sectionOf = (title: string): string => text.split(`### ${title}`)[1]?.split("\n#")[0] ?? "";

  test.each([...source, ...filesOf("assembly")])("names %s", (file) => {
    const [top, folder, ...rest] = file.split("/");
    const inFolder = rest.length > 0;
    const section = sectionOf(
      top === "assembly" ? "assembly/" : inFolder ? `src/${folder}/` : "src/:",
    );
    const name = inFolder ? rest.join("/") : folder!;
    expect(section).toContain(`\`${name}\``);
  });
});
