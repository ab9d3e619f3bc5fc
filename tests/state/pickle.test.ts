// The interpreter of pickles: what each opcode gives, and what is refused. Pickles that are made to take
// all memory are in torch-attacks.ts.

import { StateError } from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { unpickle } from "../../src/state/pickle.js";
import { Global, PyObject } from "../../src/state/python.js";
import { assertRefuses } from "../support/refuse.js";
import {
  call,
  dict,
  float,
  list,
  NONE,
  named,
  ORDERED,
  object,
  pickle,
  text,
  tuple,
} from "./torch-files.js";

const calls: [string, readonly unknown[]][] = [];
const hooks = {
  persistent: (id: unknown) => ({ id }),
  call: (path: string, args: readonly unknown[]) => {
    calls.push([path, args]);
    return path === "made.up" ? "made" : undefined;
  },
};

const read = (value: string | Uint8Array): unknown => {
  const bytes = typeof value === "string" ? pickle(value) : value;
  return unpickle(bytes, 0, hooks, bytes.length).value;
};
const long = (...bytes: number[]): string => String.fromCharCode(...bytes);
const entries = (value: unknown): unknown => Object.fromEntries((value as PyObject).items ?? []);

describe("values", () => {
  test.each<[string, string, unknown]>([
    ["None", NONE, null],
    ["True and False", tuple("\x88", "\x89"), [true, false]],
    [
      "whole numbers of 8, 16 and 32 bits",
      tuple("K\xff", "M\xff\xff", "J\xff\xff\xff\xff"),
      [255, 65535, -1],
    ],
    ["a long of no bytes", "\x8a\x00", 0],
    [
      "longs",
      tuple("\x8a\x02\x00\x80", "\x8a\x03\x00\x80\x00", "\x8a\x01\xff"),
      [-32768, 32768, -1],
    ],
    ["2^53 - 1", `\x8a\x07${long(255, 255, 255, 255, 255, 255, 31)}`, 2 ** 53 - 1],
    ["2^70", `\x8b${long(9, 0, 0, 0)}${"\x00".repeat(8)}\x40`, 2 ** 70],
    ["floats", tuple(float(0.1), float(-Infinity)), [0.1, -Infinity]],
    [
      "text",
      tuple(text("ü…"), `\x8c\x02\xc3\xbc`, `\x8d\x01${"\x00".repeat(7)}a`),
      ["ü…", "ü", "a"],
    ],
    [
      "str of Python 2, and where it is no text",
      tuple("U\x01a", `T${long(1, 0, 0, 0)}\xff`),
      ["a", null],
    ],
    [
      "bytes, left out",
      tuple("C\x01a", `B${long(1, 0, 0, 0)}a`, `\x8e\x01${"\x00".repeat(7)}a`),
      [null, null, null],
    ],
    ["a bytearray, left out", `\x96\x01${"\x00".repeat(7)}a`, null],
    [
      "tuples",
      tuple(")", "K\x01\x85", "K\x01K\x02\x86", "K\x01K\x02K\x03\x87"),
      [[], [1], [1, 2], [1, 2, 3]],
    ],
    ["lists", tuple("]K\x01a", "](K\x01K\x02e", "(K\x01K\x02l"), [[1], [1, 2], [1, 2]]],
    ["sets", tuple("\x8f(K\x01\x90", "(K\x01K\x02\x91"), [[1], [1, 2]]],
    [
      "a frame, and a value kept and asked for",
      "\x95\x00\x00\x00\x00\x00\x00\x00\x00K\x05\x94q\x07j\x07\x00\x00\x00\x86",
      [5, 5],
    ],
    ["a large index", `K\x05r${long(255, 255, 255, 255)}j${long(255, 255, 255, 255)}\x86`, [5, 5]],
    ["values thrown away and doubled", tuple("K\x01K\x020", "K\x032", "(K\x09K\x081"), [1, 3, 3]],
    ["a persistent id", `${text("key")}Q`, { id: "key" }],
    ["a class by values on the stack", `${text("a.b")}${text("C")}\x93`, new Global("a.b.C")],
    ["a call that is known", call("made.up", "K\x01"), "made"],
  ])("%s", (_, code, value) => {
    expect(read(code)).toEqual(value);
  });

  test("a float with its own sign of zero", () => {
    expect(read(float(-0))).toBe(-0);
  });

  test("dicts", () => {
    const wanted = { a: 1, b: 2 };
    for (const code of [
      dict({ a: "K\x01", b: "K\x02" }),
      dict({ a: "K\x01", b: "K\x02" }, ORDERED),
      `}${text("a")}K\x01s${text("b")}K\x02s`,
      `(${text("a")}K\x01${text("b")}K\x02d`,
      // As Python 2 writes an OrderedDict.
      call("collections.OrderedDict", list(list(text("a"), "K\x01"), list(text("b"), "K\x02"))),
    ]) {
      const value = read(code) as PyObject;
      expect(entries(value)).toEqual(wanted);
      expect(value.isDict).toBe(true);
    }
  });

  test("objects: their class, their attributes, their entries", () => {
    const plain = read(object("a.B", { x: "K\x01" })) as PyObject;
    expect(plain.type).toEqual(new Global("a.B"));
    expect(plain.isDict).toBe(false);
    expect(entries(plain.state)).toEqual({ x: 1 });
    const made = read(dict({ x: "K\x01" }, call("a.B", "K\x07"))) as PyObject;
    expect(entries(made)).toEqual({ x: 1 });
    // With slots beside the attributes, and arguments by name.
    const slots = read(
      `${named("a.B")})}\x92${tuple(dict({ x: "K\x01" }), dict({}))}b`,
    ) as PyObject;
    expect(entries(slots.state)).toEqual({ x: 1 });
    // A list with a class of its own.
    expect(read(`${call("a.List")}(K\x01e`)).toBeInstanceOf(PyObject);
    // What is called may be a value itself.
    expect(read(`${call("a.f")})R`)).toBeInstanceOf(PyObject);
  });

  test("nothing is called", () => {
    calls.length = 0;
    const value = read(call("os.system", text("echo")));
    expect(value).toBeInstanceOf(PyObject);
    expect(calls).toEqual([["os.system", ["echo"]]]);
    expect(read(call("builtins.eval", text("1")))).toMatchObject({
      type: { path: "builtins.eval" },
    });
    for (const name of ["__proto__.x", "constructor.prototype", "Object.assign"]) {
      expect(read(call(name))).toBeInstanceOf(PyObject);
    }
  });

  test("ends where it ends", () => {
    const bytes = Uint8Array.of(9, ...pickle("K\x05"), 7);
    expect(unpickle(bytes, 1, hooks, 0)).toEqual({ value: 5, end: bytes.length - 1 });
  });
});

describe("is refused", () => {
  test.each<[string, string, RegExp]>([
    ["an opcode of protocol 0", "I5\n", /got the unknown opcode 0x49 at 3$/],
    ["an opcode of none", "\xff", /got the unknown opcode 0xff at 3$/],
    ["a value that was not kept", "h\x05", /got a damaged one at 4$/],
    ["a tuple of nothing", "\x85", /got a damaged one at/],
    ["an end without a beginning", "t", /got a damaged one at/],
    ["an end on nothing", "", /got a damaged one at/],
    ["what is behind a mark", "K\x01(\x85", /got a damaged one at/],
    ["entries of a number", "K\x01(K\x01K\x02u", /got a damaged one at/],
    ["a key without a value", "}(K\x01u", /got a damaged one at/],
    ["values of a number", "K\x01(K\x01e", /got a damaged one at/],
    ["a class without a name", "NN\x93", /got a damaged one at/],
    ["a dict of no pairs", call("collections.OrderedDict", list("K\x01")), /got a damaged one at/],
    ["text that is none", `X${long(1, 0, 0, 0)}\xff`, /^bytes: text of a pickle: expected UTF-8/],
    ["text beyond the end", `X${long(255, 255, 255, 255)}a`, /got one that breaks off/],
    ["text of 2^63 bytes", `\x8d${long(0, 0, 0, 0, 0, 0, 0, 128)}`, /got one that breaks off/],
    ["old text beyond the end", "U\x99a", /got one that breaks off/],
    ["a line that does not end", "cabc", /got one that breaks off/],
    ["a long beyond the end", `\x8b${long(255, 255, 255, 255)}`, /got one that breaks off/],
  ])("%s", (_, code, message) => {
    assertRefuses(StateError, message, () => read(code));
  });

  test("every beginning", () => {
    const bytes = pickle(dict({ a: tuple(float(1), text("b")), c: call("made.up") }, ORDERED));
    for (let length = 0; length < bytes.length; length++) {
      assertRefuses(StateError, /^bytes: /, () => read(bytes.subarray(0, length)));
    }
  });
});

describe("values in themselves", () => {
  test("lists and dicts", () => {
    const own = read("]q\x00h\x00a") as unknown[];
    expect(own[0]).toBe(own);
    const dictionary = read(`}q\x00${text("a")}h\x00s`) as PyObject;
    expect(dictionary.items!.get("a")).toBe(dictionary);
  });

  test("as many as two to the power of forty, each twice the one before", () => {
    let code = ")q\x00";
    for (let i = 0; i < 40; i++) code += `0(h${long(i)}h${long(i)}tq${long(i + 1)}`;
    let value = read(code);
    for (let level = 0; level < 40; level++) [, value] = value as unknown[];
    expect(value).toEqual([]);
  });

  test("two hundred thousand, one within the other", () => {
    const depth = 200_000;
    let value = read(`)${"\x85".repeat(depth)}`);
    for (let level = 0; level < depth; level++) [value] = value as unknown[];
    expect(value).toEqual([]);
  });
});
