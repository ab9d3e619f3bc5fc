// Padding at test time: it comes out as beta, whatever it holds, and changes no other output.

import type { BatchNorm, Layout } from "batchnorm-wasm";
import { assertSameBits } from "../../support/compare.js";
import { countOf, nameOf, placesOf, type Shaped, sizeOf, viewOf } from "../../support/shapes.js";
import type { Suite } from "../section.js";
import { bell, maskOf } from "../values.js";

/** A few values, for which JavaScript does the work, and many, for which the kernels do; rows and planes. */
const PADDED: readonly Shaped[] = (
  [
    ["NC", [6, 3]],
    ["NC", [700, 33]],
    ["NLC", [2, 5, 3]],
    ["NLC", [5, 40, 17]],
    ["NDHWC", [2, 3, 4, 5, 65]],
    ["channelsLast", [2, 2, 2, 3]],
    ["channelsLast", [4, 5, 6, 7]],
    ["NCL", [2, 3, 5]],
    ["NCL", [9, 11, 40]],
    ["NCHW", [3, 5, 11, 13]],
    ["channelsFirst", [2, 3, 1, 5]],
    ["channelsFirst", [3, 2, 4, 3, 5, 7]],
  ] as [Layout, number[]][]
).map(([layout, shape]) => ({ layout, shape }));

/** `infer` with a mask, of a layer and of frozen ones of both entries. */
export function inferMask(suite: Suite): void {
  for (const [i, shaped] of PADDED.entries()) {
    for (const beta of [true, false]) masked(suite, shaped, beta, i);
  }
  refusals(suite);
}

function masked(
  { checks, library, testTime, layerOf }: Suite,
  shaped: Shaped,
  beta: boolean,
  i: number,
): void {
  checks.check(`${nameOf(shaped)}: infer with a mask${beta ? "" : ", without beta"}`, () => {
    const { shape } = shaped;
    const { channels, inner } = viewOf(shaped);
    const layer = layerOf(shaped, { beta }, i);
    const x = bell(sizeOf(shaped), 280 + i, 1, 2);
    const mask = maskOf(countOf(shaped), 300 + i);
    const expected = layer.infer(x, { shape });
    for (const at of placesOf(shaped, (position) => mask[position] === 0)) {
      x[at] = NaN;
      expected[at] = layer.beta?.[Math.floor(at / inner) % channels] ?? 0;
    }
    const text = JSON.stringify(layer.freeze());
    const ways: Record<string, Pick<BatchNorm, "infer">> = {
      layer,
      frozen: layer.freeze(),
      "from JSON": library.FrozenBatchNorm.fromJSON(text),
    };
    for (const [name, way] of Object.entries(ways)) {
      assertSameBits(name, way.infer(x, { shape, mask }), expected);
    }
    const small = testTime.FrozenBatchNorm.fromJSON(text);
    assertSameBits("batchnorm-wasm/infer", small.infer(x, { shape, mask }), expected);
    assertSameBits("in place", small.infer(x, { shape, mask, out: x }), expected);
    checks.record(expected);
  });
}

function refusals({ checks, library, layerOf }: Suite): void {
  const { FrozenBatchNorm, ShapeError, StateError } = library;
  const layer = layerOf({ layout: "NC", shape: [4, 3] });
  const x = bell(12, 320);
  const short = new Uint8Array(3);
  const json = layer.freeze().toJSON();
  const { beta: _none, ...old } = json;
  const first = FrozenBatchNorm.fromJSON({ ...old, version: 1 });
  checks.refuses(
    "infer: a short mask",
    ShapeError,
    "SHAPE",
    () => layer.infer(x, { mask: short }),
    layer,
  );
  checks.refuses("frozen: a short mask", ShapeError, "SHAPE", () =>
    layer.freeze().infer(x, { mask: short }),
  );
  checks.refuses("a mask, of JSON that says no beta", StateError, "STATE", () =>
    first.infer(x, { mask: new Uint8Array(4) }),
  );
  checks.check("JSON of version 1, without a mask", () => {
    assertSameBits("y", first.infer(x), layer.infer(x));
  });
}
