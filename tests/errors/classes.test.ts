// The classes themselves, and what is no error: arrays of other realms and of subclasses.

import { runInNewContext } from "node:vm";
import {
  BatchNorm,
  BatchNormError,
  MemoryError,
  Moments,
  NonFiniteError,
  OptionError,
  ShapeError,
  SingleValueError,
  StateError,
  UnsupportedError,
} from "batchnorm-wasm";
import { describe, expect, test } from "vitest";
import { stateOf } from "../support/cases.js";
import { assertSameBits } from "../support/compare.js";
import { Fixture } from "./rows.js";

test("every error extends BatchNormError and Error", () => {
  for (const [Class, name] of [
    [OptionError, "OptionError"],
    [ShapeError, "ShapeError"],
    [SingleValueError, "SingleValueError"],
    [NonFiniteError, "NonFiniteError"],
    [StateError, "StateError"],
    [MemoryError, "MemoryError"],
    [UnsupportedError, "UnsupportedError"],
  ] as const) {
    const error = new Class("why");
    expect(error).toBeInstanceOf(BatchNormError);
    expect(error).toBeInstanceOf(Error);
    expect(error.name).toBe(name);
    expect(error.message).toBe("why");
    expect(error.code).toMatch(/^[A-Z_]+$/);
  }
});

describe("arrays of other realms are Float32Arrays", () => {
  test("as x, dy, out, dx, dgamma and dbeta, with options and a shape of theirs", () => {
    const foreign = (length: number): Float32Array =>
      runInNewContext("new Float32Array(length)", { length });
    const { layer, x, dy } = new Fixture();
    const theirs = { x: foreign(12), dy: foreign(12) };
    expect(theirs.x).not.toBeInstanceOf(Float32Array);
    theirs.x.set(x);
    theirs.dy.set(dy);
    const reference = layer.clone();
    const out = foreign(12);
    const shape = runInNewContext("[4, 3]");
    expect(layer.train(theirs.x, { shape, out })).toBe(out);
    assertSameBits("y", out, reference.train(x));
    const into = { dx: foreign(12), dgamma: foreign(3), dbeta: foreign(3) };
    const actual = layer.backward(theirs.dy, { out: into });
    const expected = reference.backward(dy);
    for (const name of ["dx", "dgamma", "dbeta"] as const) {
      expect(actual[name]).toBe(into[name]);
      assertSameBits(name, into[name], expected[name]!);
    }
    const snapshot = runInNewContext(`(${JSON.stringify(layer.snapshot())})`);
    expect(stateOf(BatchNorm.fromSnapshot(snapshot))).toBe(stateOf(layer));
  });

  test("and so are subclasses", () => {
    class Named extends Float32Array {}
    const { layer, x } = new Fixture();
    const own = new Named(12);
    own.set(x);
    assertSameBits("y", layer.infer(own), layer.infer(x));
    expect(layer.infer(x, { out: own })).toBe(own);
  });
});

test("of a long text a message has the beginning", () => {
  const { layer } = new Fixture();
  const shown = (text: string): string => {
    try {
      layer.infer(text as never);
    } catch (error) {
      return (error as Error).message;
    }
    return "";
  };
  const hundred = "\n".repeat(100);
  expect(shown(hundred)).toBe(`x: expected a Float32Array, got ${JSON.stringify(hundred)}`);
  expect(shown(`${hundred}more`)).toBe(
    `x: expected a Float32Array, got ${JSON.stringify(hundred)} …`,
  );
  // Neither is the text that stands where JSON says its format.
  const json = { format: `${hundred}more` };
  expect(() => Moments.fromJSON(json as never)).toThrow(
    `json: expected an object of format "batchnorm-wasm/moments", got format ${JSON.stringify(hundred)} …`,
  );
});
