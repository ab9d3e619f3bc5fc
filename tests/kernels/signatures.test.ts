// assembly/ and src/engine/ write the same things down: the arguments of the kernels, the sizes of blocks and
// the distances of arrays. Neither compiler sees the other side, so they are compared here.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";
import ts from "typescript";
import { describe, expect, test } from "vitest";
import { MAX_COLUMNS, Memory, STREAM_FLOATS } from "../../src/engine/memory.js";
import * as plan from "../../src/engine/plan.js";
import * as room from "../../src/threads/room.js";
import { SCRATCH, TERM } from "../support/binary.js";

const read = (path: string): string =>
  readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), "utf8");

const parse = (path: string): ts.SourceFile =>
  ts.createSourceFile(path, read(path), ts.ScriptTarget.ES2022, true);

/** The one that is there; throws if there is none. */
function found<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(`expected ${what}, found none`);
  return value;
}

/** What a function takes and returns, in the words of src/: "At" is an address. */
interface Signature {
  readonly parameters: readonly (readonly [name: string, type: string])[];
  readonly returns: string;
}

function signatureOf(
  { parameters, type }: ts.SignatureDeclaration,
  typeOf: (name: string, type: ts.TypeNode | undefined) => string,
): Signature {
  return {
    parameters: parameters.map((each) => {
      const name = each.name.getText();
      return [name, typeOf(name, each.type)];
    }),
    returns: typeOf("", type),
  };
}

/** The types of assembly/ as src/ has to write them: every usize is an address, but for the strides. */
function typeInAssembly(name: string, type: ts.TypeNode | undefined): string {
  const text = type?.getText();
  if (text === "void") return text;
  return text === "usize" && name !== "stride" ? "At" : "number";
}

/** `At<…>` whatever lies there, others as they are written. */
function typeInSource(_name: string, type: ts.TypeNode | undefined): string {
  const text = found(type, "a type").getText();
  return text.startsWith("At<") ? "At" : text;
}

/** The functions that an entry of assembly/ exports. */
function kernelsOf(entry: string): Map<string, Signature> {
  const kernels = new Map<string, Signature>();
  for (const statement of parse(`assembly/${entry}`).statements) {
    if (!ts.isExportDeclaration(statement)) continue;
    const { exportClause, moduleSpecifier } = statement;
    if (!exportClause || !ts.isNamedExports(exportClause) || !moduleSpecifier) {
      throw new Error(`assembly/${entry}: expected names from a file in every export`);
    }
    const path = `assembly/${(moduleSpecifier as ts.StringLiteral).text}.ts`;
    const functions = parse(path).statements.filter(ts.isFunctionDeclaration);
    for (const { name, propertyName } of exportClause.elements) {
      const own = (propertyName ?? name).text;
      const declaration = functions.find((each) => each.name?.text === own);
      const kernel = found(declaration, `a function ${own} in ${path}`);
      kernels.set(name.text, signatureOf(kernel, typeInAssembly));
    }
  }
  return kernels;
}

const interfaces = new Map(
  parse("src/engine/machine.ts")
    .statements.filter(ts.isInterfaceDeclaration)
    .map((each) => [each.name.text, each]),
);

/** The members of an interface of src/engine/machine.ts by name, with those of the one that it extends. */
function membersOf(name: string): Map<string, ts.TypeElement> {
  const { heritageClauses, members } = found(interfaces.get(name), `an interface ${name}`);
  const bases = (heritageClauses ?? []).flatMap(({ types }) => types);
  return new Map([
    ...bases.flatMap(({ expression }) => [...membersOf(expression.getText())]),
    ...members.map((member) => [found(member.name, "a name").getText(), member] as const),
  ]);
}

/** The signature of a method; a property may refer to that of another one: `Exports["gradientStrips"]`. */
function methodOf(of: string, name: string): Signature {
  const member = found(membersOf(of).get(name), `${of}.${name}`);
  if (ts.isMethodSignature(member)) return signatureOf(member, typeInSource);
  const type = ts.isPropertySignature(member) ? member.type : undefined;
  const [, other, method] = /^(\w+)\["(\w+)"\]$/.exec(type?.getText() ?? "") ?? [];
  return methodOf(
    found(other, `${of}.${name} to be a method or to refer to one`),
    found(method, "its name"),
  );
}

/** The functions of several entries, none of which is in two of them. */
function kernelsOfAll(entries: readonly string[]): Map<string, Signature> {
  const all = entries.map(kernelsOf);
  const together = new Map(all.flatMap((kernels) => [...kernels]));
  expect(together.size).toBe(all.reduce((sum, { size }) => sum + size, 0));
  return together;
}

const LAYERS = ["frozen.ts", "index.ts"];

describe.each([
  [LAYERS, "Exports"],
  [["infer.ts"], "AffineExports"],
  [["threads.ts"], "ThreadExports"],
])("assembly/, %s, and %s", (entries, name) => {
  const kernels = kernelsOfAll(entries);

  test("have the same functions", () => {
    const required = [...membersOf(name)].filter(([, { questionToken }]) => !questionToken);
    expect(required.map(([method]) => method).sort()).toEqual([...kernels.keys()].sort());
  });

  test.each([...kernels])("%s takes the same arguments in the same order", (kernel, signature) => {
    expect(methodOf(name, kernel)).toEqual(signature);
  });
});

test("frozen.ts has all that a frozen layer calls, and only that", () => {
  expect([...kernelsOf("frozen.ts").keys()].sort()).toEqual(
    [...membersOf("AffineExports").keys()].sort(),
  );
});

test("assembly/kernels.ts imports kernels of layers as they are", () => {
  const exported = kernelsOfAll(LAYERS);
  const imported = parse("assembly/kernels.ts").statements.filter(ts.isFunctionDeclaration);
  expect(imported.length).toBeGreaterThan(0);
  for (const declaration of imported) {
    const name = found(declaration.name, "a name").text;
    expect(signatureOf(declaration, typeInAssembly), name).toEqual(exported.get(name));
    // The name of the import is what its decorator says, not that of the function.
    const decorators = (ts.getDecorators(declaration as never) ?? []).map((each) => each.getText());
    expect(decorators, name).toEqual([`@external("kernels", "${name}")`]);
  }
});

/** The constants of a file of ours that are not exported. */
const hiddenIn = (path: string): ts.VariableDeclaration[] =>
  parse(path)
    .statements.filter(ts.isVariableStatement)
    .filter(({ modifiers }) => !modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword))
    .flatMap(({ declarationList }) => [...declarationList.declarations]);

/** What assembly/blocks.ts declares, exported or not, as its own compiler works it out. */
async function compileBlocks() {
  const hidden = hiddenIn("assembly/blocks.ts").map(({ name }) => name.getText());
  const source = `${read("assembly/blocks.ts")}\nexport { ${hidden.join(", ")} };\n`;
  let binary = new Uint8Array();
  const { error, stderr } = await asc.main(
    ["blocks.ts", "--outFile", "blocks.wasm", "--runtime", "stub"],
    {
      readFile: (path) => (path === "blocks.ts" ? source : null),
      writeFile: (_path, contents) => {
        binary = Uint8Array.from(contents as Uint8Array);
      },
      listFiles: () => [],
    },
  );
  if (error) throw new Error(`assembly/blocks.ts does not compile by itself:\n${stderr}`);
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(binary));
  const numbers = Object.entries(exports).flatMap(([name, value]) =>
    value instanceof WebAssembly.Global ? [[name, value.value as number] as const] : [],
  );
  return {
    numbers: new Map(numbers),
    rowsOfOne: exports.rowsOfOne as (width: number) => number,
    rowsOfTwo: exports.rowsOfTwo as (width: number) => number,
  };
}

const blocks = await compileBlocks();
const blockNumber = (name: string): number =>
  found(blocks.numbers.get(name), `${name} in assembly/blocks.ts`);

describe("sizes of blocks", () => {
  test("of one name have one value on both sides", () => {
    const both = Object.entries(plan).filter(([name]) => blocks.numbers.has(name));
    expect(both.map(([name]) => name).sort()).toEqual([
      "BLOCK_ONE",
      "BLOCK_PLANE",
      "BLOCK_ROWS",
      "BLOCK_TWO",
      "NARROW",
    ]);
    for (const [name, value] of both) expect(value, name).toBe(blockNumber(name));
  });

  test.each([
    ["rowsOfOne", plan.rowsOfOne],
    ["rowsOfTwo", plan.rowsOfTwo],
  ] as const)("%s is the same", (name, rowsOf) => {
    for (let width = 1; width <= MAX_COLUMNS; width++) {
      const rows = rowsOf(width);
      expect(rows, `${width} columns`).toBe(blocks[name](width));
      expect(rows).toBeGreaterThan(0);
      // Rows in fours, which neighbours are if they are narrow, do not reach into the next block.
      expect(rows % 4).toBe(0);
    }
  });

  test("a stream buffer holds whole blocks of planes, and a block of two tensors", () => {
    expect(STREAM_FLOATS % blockNumber("BLOCK_PLANE")).toBe(0);
    for (let width = 1; width <= MAX_COLUMNS; width++) {
      expect(plan.rowsOfTwo(width) * width).toBeLessThanOrEqual(STREAM_FLOATS);
    }
    // Moments have both buffers.
    expect(2 * STREAM_FLOATS).toBeGreaterThanOrEqual(blockNumber("BLOCK_ONE"));
  });
});

describe("kernel memory", () => {
  /** How many bytes were asked for at each address. */
  const sizes = new Map<number, number>();
  class Recorded extends Memory {
    protected override place(bytes: number): number {
      const at = super.place(bytes);
      sizes.set(at, bytes);
      return at;
    }
  }
  const memory = new Recorded(1 << 20);

  test.each(["terms", "columns"] as const)(
    "%s lie as far apart as kernels take them to",
    (name) => {
      const { at, center, scale, shift, slope } = memory[name];
      expect(center.at).toBe(at);
      expect(scale.at - at).toBe(blockNumber("SCALE"));
      expect(shift.at - at).toBe(blockNumber("SHIFT"));
      expect(slope.at - at).toBe(blockNumber("SLOPE"));
    },
  );

  test("there is room for six arrays of scratch, each moved against the one before", () => {
    const stagger = hiddenIn("src/engine/memory.ts").find(
      ({ name }) => name.getText() === "STAGGER",
    );
    const bytes = Number(found(stagger?.initializer, "STAGGER in src/engine/memory.ts").getText());
    expect(blockNumber("SCRATCH")).toBe(MAX_COLUMNS * 4 + bytes);
    expect(sizes.get(memory.scratch)).toBe(6 * blockNumber("SCRATCH"));
  });
});

describe("memory of threads", () => {
  /** The constants of assembly/told.ts. */
  const told = new Map(
    parse("assembly/told.ts")
      .statements.filter(ts.isVariableStatement)
      .flatMap(({ declarationList }) => [...declarationList.declarations])
      .map(({ name, initializer }) => [name.getText(), Number(initializer?.getText())]),
  );
  const toldNumber = (name: string): number => found(told.get(name), `${name} in assembly/told.ts`);

  /** The bytes of the fields of each class of jobs. */
  const jobs = parse("assembly/pieces.ts")
    .statements.filter(ts.isClassDeclaration)
    .map(({ members }) => {
      const sizes: Record<string, number> = { u32: 4, usize: 4, f32: 4, f64: 8 };
      const types = members.filter(ts.isPropertyDeclaration).map(({ type }) => type?.getText());
      const all = types.map((type) => found(sizes[type ?? ""], `a size of ${type}`));
      return all.reduce((sum, size) => sum + size, 0);
    });

  test.each([1, 2, 7, 64])("of %i threads is as large as what lies in it", (threads) => {
    expect(jobs.length).toBe(2);
    const states = 3 * toldNumber("STATES");
    const own = toldNumber("OWN") + toldNumber("SCRATCH_BYTES");
    const bytes = toldNumber("WORDS") + 2 * Math.max(...jobs) + states + threads * own;
    expect(room.roomOf(threads)).toBe(bytes);
  });

  test("has room for the states of all columns", () => {
    expect(toldNumber("STATES")).toBe(8 * room.COLUMNS);
  });

  test("has the settings in the order in which they are written", () => {
    const names = /words\.set\(\[([^\]]*)\]/.exec(read("src/threads/start.ts"))?.[1]?.split(",");
    const settings = found(names, "the settings in src/threads/start.ts")
      .map((name) => name.trim().toUpperCase())
      .filter((name) => name !== "");
    expect(settings.length).toBeGreaterThan(5);
    const places = settings.map(toldNumber);
    expect(places).toEqual(places.map((_, i) => room.SETTINGS + 4 * i));
  });

  test("a thread has room for what a piece of `backward` keeps, which is more than moments do", () => {
    const scratch = blockNumber("SCRATCH");
    // nearPiece: the four terms, then two arrays of float32 and two of float64.
    expect(toldNumber("SCRATCH_BYTES")).toBeGreaterThanOrEqual(
      4 * blockNumber("SCALE") + 6 * scratch,
    );
  });

  test.each([
    ["HEAVY", "assembly/shares.ts", "src/threads/sizes.ts"],
    ["MAX_PIECES", "assembly/protocol.ts", "src/threads/room.ts"],
  ])("%s is the same in %s and %s", (name, ...files) => {
    const [here, there] = files.map(
      (file) => new RegExp(`const ${name}\\b[^=]*= (\\d+);`).exec(read(file))?.[1],
    );
    expect(Number(here)).toBeGreaterThan(0);
    expect(there).toBe(here);
  });
});

describe("the other tests of this folder", () => {
  test("lay arrays out alike", () => {
    expect(TERM).toBe(blockNumber("SCALE"));
    expect(SCRATCH * 4).toBe(6 * blockNumber("SCRATCH"));
  });
});
