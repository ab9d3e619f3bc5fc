// A residual and a ReLU, where `train` may keep a bit for each value by which `backward` then gates dy (assembly/bits.ts): the
// bits of the separate steps, whether the runtime goes by kept bits, by values that are worked out again, or from one to the
// other.

import { assertSameBits } from "../../support/compare.js";
import { random } from "../../support/data.js";
import { countOf, nameOf, placesOf, type Shaped, sizeOf } from "../../support/shapes.js";
import type { Suite } from "../section.js";
import { bell, maskOf } from "../values.js";

/** Rows and planes of 16 values and of other numbers, in one part and in several. */
const SHAPES: readonly Shaped[] = [
  { layout: "NC", shape: [9, 5] },
  { layout: "NC", shape: [6, 8] },
  { layout: "NC", shape: [5, 16] },
  { layout: "NC", shape: [67, 48] },
  { layout: "NC", shape: [200, 8] },
  { layout: "NC", shape: [1100, 64] },
  { layout: "NC", shape: [70, 1024] },
  { layout: "NHWC", shape: [2, 5, 5, 16] },
  { layout: "NCL", shape: [10, 8, 2] },
  { layout: "NCHW", shape: [2, 3, 4, 2] },
  { layout: "NCHW", shape: [2, 3, 4, 4] },
  { layout: "NCHW", shape: [3, 5, 8, 6] },
  { layout: "NCHW", shape: [3, 5, 7, 7] },
  { layout: "NCHW", shape: [1, 2, 296, 240] },
];

/** Residuals at which a comparison, a sum or a cut to fewer bits may go wrong. */
const FINITE = [0, -0, 2 ** -149, -(2 ** -149), 2 ** -126, 1e-30, 127.5, 32768, 3e38, -3e38];
const VALUES = {
  finite: FINITE,
  infinite: [...FINITE, Infinity, -Infinity],
  NaN: [...FINITE, Infinity, -Infinity, NaN],
} as const;

/** What happens before `backward`. */
const BETWEEN = ["nothing", "another gamma", "in place"] as const;

export function keptBits(suite: Suite): void {
  for (const shaped of SHAPES) {
    for (const values of ["finite", "infinite", "NaN"] as const) {
      for (const between of BETWEEN) {
        for (const masked of [false, true]) steps(suite, shaped, values, between, masked);
      }
    }
  }
}

function steps(
  { checks, layerOf }: Suite,
  shaped: Shaped,
  values: keyof typeof VALUES,
  between: (typeof BETWEEN)[number],
  masked: boolean,
): void {
  const title = `${nameOf(shaped)}: bits, ${values}, ${between}${masked ? ", mask" : ""}`;
  checks.check(title, () => {
    const { shape } = shaped;
    const size = sizeOf(shaped);
    const mask = maskOf(countOf(shaped), 314);
    const padding = new Set(masked ? placesOf(shaped, (position) => mask[position] === 0) : []);
    const data = masked ? { shape, mask } : { shape };
    const next = random(313);
    const [x, dy, other] = [bell(size, 311, 0.5, 2), bell(size, 312), bell(size, 315)];
    const plain = layerOf(shaped, {}, 310);
    const layer = layerOf(shaped, { activation: "relu" }, 310);
    const z = plain.train(x, data);
    const special = VALUES[values];
    const add = bell(size, 316).map((v, i) => {
      const kind = next();
      // Of some the sum is 0.
      if (kind < 0.1) return -z[i]!;
      return kind < 0.3 ? special[Math.floor(next() * special.length)]! : v;
    });
    // Bits of other batches, so that those of this one are written over some.
    for (let i = 0; i < 2; i++) layer.train(dy, { ...data, add: other });
    const given = add.slice();
    const inPlace = between === "in place";
    const y = layer.train(x, { ...data, add: given, ...(inPlace && { out: given }) });
    const sums = z.map((v, i) => (padding.has(i) ? v : Math.fround(v + add[i]!)));
    assertSameBits(
      "train",
      y,
      sums.map((v) => (v < 0 ? 0 : v)),
    );
    if (between === "another gamma") {
      for (const { gamma } of [plain, layer]) gamma!.set([-0.75]);
    }
    const results = layer.backward(dy, inPlace ? { add } : {});
    // What lets dy pass is the value by the γ of now.
    const now = between === "another gamma" ? plain.train(x, data) : z;
    const kept = dy.map((v, i) => {
      const sum = Math.fround(now[i]! + add[i]!);
      return sum > 0 && sum < Infinity && !padding.has(i) ? v : 0;
    });
    const expected = plain.backward(kept);
    assertSameBits("dx", results.dx, expected.dx);
    assertSameBits("dgamma", results.dgamma!, expected.dgamma!);
    assertSameBits("dbeta", results.dbeta!, expected.dbeta!);
    assertSameBits("dadd", results.dadd!, kept);
    const again = layer.backward(dy, inPlace ? { add } : {});
    assertSameBits("dx, again", again.dx, results.dx);
    checks.record(y, results.dx, results.dgamma, results.dbeta, results.dadd);
  });
}
