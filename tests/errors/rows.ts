// Rows of refusals: what is wrong, the call, and the whole message. `refuses` makes a test of each, which also
// checks that nothing has changed.

import { type BatchNormError, Kernels } from "batchnorm-wasm";
import { expect, test } from "vitest";
import { layerOf, settle, stateOf } from "../support/cases.js";
import { assertSameBits } from "../support/compare.js";
import { normal } from "../support/data.js";
import { fillGuards, isGuarded } from "../support/guards.js";

export const KERNELS = new Kernels({ memory: 1 << 20 });

/** A trained layer of three channels with data of four examples, and an array nothing may touch. */
export class Fixture {
  readonly kernels = KERNELS;
  readonly layer = settle(layerOf({ layout: "NC", shape: [4, 3] }, { kernels: KERNELS }));
  readonly x = normal(12, 1);
  readonly dy = normal(12, 2);
  readonly out = fillGuards(new Float32Array(12));

  constructor() {
    this.layer.train(this.x);
  }

  /** A tensor that is freed already. */
  freed(length = 12): Float32Array {
    const view = this.kernels.alloc(length);
    this.kernels.free(view);
    return view;
  }

  /** A batch of this layer whose x was overwritten in place. */
  trainInPlace(): this {
    const same = this.x.slice();
    this.layer.train(same, { out: same });
    return this;
  }
}

type ErrorClass = new (message: string) => BatchNormError;
export type Call = (f: Fixture) => unknown;

/** One call that is refused. */
export interface Row {
  /** What is wrong. */
  readonly name: string;
  /** The whole message; a pattern only where it holds a number that depends on the memory's layout. */
  readonly message: string | RegExp;
  readonly call: Call;
}

/** What a call throws, or "nothing". */
function thrownBy(call: Call, f: Fixture): unknown {
  try {
    call(f);
  } catch (error) {
    return error;
  }
  return "nothing";
}

/** A test for each row: the error's class, code and message, and that neither layer nor arrays have changed. */
export function refuses(errorClass: ErrorClass, code: string, rows: readonly Row[]): void {
  test.each(rows.map((row) => [row.name, row] as const))("%s", (_, { message, call }) => {
    const f = new Fixture();
    const { layer } = f;
    const state = stateOf(layer);
    const last = layer.lastBatch;
    const [x, dy] = [f.x.slice(), f.dy.slice()];
    const thrown = thrownBy(call, f) as BatchNormError;
    expect(thrown).toBeInstanceOf(errorClass);
    if (typeof message === "string") expect(thrown.message).toBe(message);
    else expect(thrown.message).toMatch(message);
    expect([thrown.name, thrown.code]).toEqual([errorClass.name, code]);
    expect(stateOf(layer)).toBe(state);
    expect(layer.lastBatch).toBe(last);
    expect(isGuarded(f.out)).toBe(true);
    assertSameBits("x", f.x, x);
    assertSameBits("dy", f.dy, dy);
  });
}
