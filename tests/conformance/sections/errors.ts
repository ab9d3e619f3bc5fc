import type { Shaped } from "../../support/shapes.js";
import { expect } from "../checks.js";
import type { Suite } from "../section.js";
import { bell } from "../values.js";

/** A layer, data, and how calls with them are refused. */
function refusalsOf({ checks, library, layerOf }: Suite) {
  const shaped: Shaped = { layout: "NC", shape: [4, 3] };
  const layer = layerOf(shaped);
  const refuses =
    (kind: { readonly name: string; readonly prototype: Error }, code: string) =>
    (name: string, call: () => unknown, of = layer): void =>
      checks.refuses(name, kind, code, call, of);
  return {
    shaped,
    layer,
    x: bell(12, 170),
    option: refuses(library.OptionError, "OPTION"),
    shape: refuses(library.ShapeError, "SHAPE"),
    state: refuses(library.StateError, "STATE"),
  };
}
type Refusals = ReturnType<typeof refusalsOf>;

/** A value of a type that the signature forbids. */
const anything = (value: unknown): never => value as never;

/** Bad input: class, code and text, and nothing has changed. */
export function errors(suite: Suite): void {
  const refusals = refusalsOf(suite);
  badOptions(suite, refusals);
  badShapes(suite, refusals);
  badValues(suite, refusals);
  badStates(suite, refusals);
  badTestTime(suite, refusals);
}

function badOptions({ library }: Suite, { layer, x, option }: Refusals): void {
  const { adapt, BatchNorm, Kernels } = library;
  option("no channels", () => new BatchNorm(0));
  option("half a channel", () => new BatchNorm(2.5));
  option("a negative epsilon", () => new BatchNorm(2, { epsilon: -1 }));
  option("decay 1", () => new BatchNorm(2, { decay: 1 }));
  option("momentum", () => new BatchNorm(2, anything({ momentum: 0.1 })));
  option("an unknown layout", () => new BatchNorm(2, anything({ layout: "CN" })));
  option("an unknown option of train", () => layer.train(x, anything({ training: true })));
  option("too little memory", () => new Kernels({ memory: 1000 }));
  option("adapt without a prior", () => adapt(layer, x, anything({})));
}

function badShapes({ layerOf }: Suite, { layer, x, shape }: Refusals): void {
  const planes = layerOf({ layout: "NCHW", shape: [1, 3, 2, 2] });
  shape("numbers", () => layer.train(anything([1, 2, 3, 4, 5, 6])));
  shape("a Float64Array", () => layer.infer(anything(new Float64Array(3))));
  shape("null", () => layer.infer(anything(null)));
  shape("half a row", () => layer.train(x.subarray(1)));
  shape("no examples", () => layer.train(new Float32Array(0)));
  shape("no shape", () => planes.train(x), planes);
  shape("a shape of other channels", () => planes.train(x, { shape: [1, 4, 3, 1] }), planes);
  shape("a shape of other size", () => planes.infer(x, { shape: [1, 3, 2, 3] }), planes);
  shape("a short out", () => layer.train(x, { out: new Float32Array(11) }));
  shape("an out that overlaps x", () => {
    const memory = new Float32Array(13);
    layer.infer(memory.subarray(0, 12), { out: memory.subarray(1) });
  });
  shape("a mask of numbers", () => layer.train(x, anything({ mask: [1, 1, 1, 1] })));
  shape("a short mask", () => layer.train(x, { mask: new Uint8Array(3) }));
}

function badValues({ checks, library }: Suite, { layer, x }: Refusals): void {
  const { BatchNorm, NonFiniteError, SingleValueError } = library;
  checks.refuses(
    "one example",
    SingleValueError,
    "SINGLE_VALUE",
    () => layer.train(x.subarray(0, 3)),
    layer,
  );
  for (const value of [NaN, Infinity, -Infinity]) {
    checks.refuses(
      `${value} in a mini-batch`,
      NonFiniteError,
      "NON_FINITE",
      () => {
        const bad = x.slice();
        bad[7] = value;
        layer.train(bad);
      },
      layer,
    );
  }
  checks.refuses("a variance that overflows", NonFiniteError, "NON_FINITE", () => {
    new BatchNorm(1).moments(Float32Array.of(3e38, -3e38, 3e38, -3e38).map((v) => v * 2));
  });
}

function badStates(
  { checks, library, layerOf }: Suite,
  { shaped, layer, x, state }: Refusals,
): void {
  const { BatchNorm, FrozenBatchNorm, Kernels, MemoryError, Moments } = library;
  state("backward before train", () => new BatchNorm(3).backward(x));
  state("backward after an in-place train", () => {
    const other = layerOf(shaped);
    const both = x.slice();
    other.train(both, { out: both });
    other.backward(x);
  });
  state("a batch of another layer", () => {
    const other = layerOf(shaped);
    other.train(x);
    layer.backward(x, { batch: other.lastBatch! });
  });
  state("a negative running variance", () => {
    const other = layerOf(shaped);
    other.runningVariance[1] = -1;
    other.infer(x);
  });
  state("no snapshot", () => BatchNorm.fromSnapshot("{}"));
  state("a frozen layer that is none", () => FrozenBatchNorm.fromJSON("[1, 2]"));
  state("moments that are none", () => Moments.fromJSON(anything({ format: "other" })));
  state("a tensor freed twice", () => {
    const tensor = layer.kernels.alloc(4);
    layer.kernels.free(tensor);
    layer.kernels.free(tensor);
  });
  state("a tensor freed already", () => {
    const tensor = layer.kernels.alloc(12);
    layer.kernels.free(tensor);
    layer.train(tensor);
  });
  const kernels = new Kernels({ memory: 1 << 20 });
  checks.refuses("more than the memory", MemoryError, "MEMORY", () => kernels.alloc(1 << 20));
}

function badTestTime({ checks, testTime }: Suite, { layer, x }: Refusals): void {
  checks.check("the same refusals by batchnorm-wasm/infer", () => {
    const small = testTime.FrozenBatchNorm.fromJSON(layer.freeze().toJSON());
    const calls: [string, () => unknown][] = [
      ["SHAPE", () => small.infer(x.subarray(1))],
      ["SHAPE", () => small.infer(anything([1, 2, 3]))],
      ["OPTION", () => small.infer(x, anything({ training: true }))],
      ["STATE", () => testTime.FrozenBatchNorm.fromJSON("{}")],
    ];
    for (const [code, call] of calls) {
      let error: unknown;
      try {
        call();
      } catch (thrown) {
        error = thrown;
      }
      const { code: got } = (error ?? {}) as { code?: unknown };
      expect(got === code, code, got);
    }
  });
}
