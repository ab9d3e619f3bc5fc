// Runs small ONNX models in float64, by the definitions of the operators
// (https://onnx.ai/onnx/operators/) and apart from the code under test, its reader of the file included.
// As plain as can be: a loop over every index.

interface Array64 {
  readonly shape: readonly number[];
  readonly data: readonly number[];
}
type Field = readonly [number: number, value: Uint8Array | number];

export interface PlainNode {
  readonly type: string;
  readonly name: string;
  readonly inputs: string[];
  readonly outputs: string[];
  readonly attributes: ReadonlyMap<string, PlainAttribute>;
}
interface PlainAttribute {
  readonly float?: number;
  readonly integer?: number;
  readonly text?: string;
  readonly integers: number[];
  readonly tensor?: Array64;
}

/** What a model file holds. */
export interface PlainModel {
  readonly nodes: readonly PlainNode[];
  readonly tensors: ReadonlyMap<string, Array64>;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly values: readonly string[];
}

/** The fields of a message: numbers by value, those of 4 and 8 bytes and all others as bytes. */
export function fieldsOf(bytes: Uint8Array): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): number => {
    let [value, scale] = [0n, 1n];
    for (;;) {
      const byte = bytes[at++]!;
      value += BigInt(byte & 127) * scale;
      scale *= 128n;
      if (byte < 128) return Number(BigInt.asIntN(64, value));
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const kind = tag & 7;
    if (kind === 0) fields.push([tag >> 3, varint()]);
    else {
      const length = kind === 1 ? 8 : kind === 5 ? 4 : varint();
      fields.push([tag >> 3, bytes.subarray(at, (at += length))]);
    }
  }
  return fields;
}

const all = (fields: readonly Field[], number: number): Uint8Array[] =>
  fields.filter(([n]) => n === number).map(([, value]) => value as Uint8Array);
const texts = (fields: readonly Field[], number: number): string[] =>
  all(fields, number).map((bytes) => new TextDecoder().decode(bytes));
const numbers = (fields: readonly Field[], number: number): number[] =>
  fields
    .filter(([n]) => n === number)
    .flatMap(([, value]) => (typeof value === "number" ? [value] : fieldsOfPacked(value)));
/** A packed row of varints is what messages of only varints would be without tags. */
function fieldsOfPacked(bytes: Uint8Array): number[] {
  const values: number[] = [];
  let [value, scale] = [0n, 1n];
  for (const byte of bytes) {
    value += BigInt(byte & 127) * scale;
    scale *= 128n;
    if (byte < 128) {
      values.push(Number(BigInt.asIntN(64, value)));
      [value, scale] = [0n, 1n];
    }
  }
  return values;
}
const floats = (bytes: Uint8Array): number[] => [...new Float32Array(new Uint8Array(bytes).buffer)];

/** A tensor of FLOAT or INT64; of other types without its values. */
function tensorOf(bytes: Uint8Array): Array64 {
  const fields = fieldsOf(bytes);
  const shape = numbers(fields, 1);
  const [type] = numbers(fields, 2);
  const [raw] = all(fields, 9);
  if (type === 7) {
    const data = raw
      ? [...new BigInt64Array(new Uint8Array(raw).buffer)].map(Number)
      : numbers(fields, 7);
    return { shape, data };
  }
  if (type !== 1) return { shape, data: [] };
  return { shape, data: raw ? floats(raw) : all(fields, 4).flatMap(floats) };
}

function nodeOf(bytes: Uint8Array): PlainNode {
  const fields = fieldsOf(bytes);
  const attributes = all(fields, 5).map((attribute): [string, PlainAttribute] => {
    const parts = fieldsOf(attribute);
    const [float] = all(parts, 2);
    const [integer] = numbers(parts, 3);
    const [text] = texts(parts, 4);
    const [tensor] = all(parts, 5);
    return [
      texts(parts, 1)[0]!,
      {
        integers: numbers(parts, 8),
        ...(float && { float: floats(float)[0]! }),
        ...(integer !== undefined && { integer }),
        ...(text !== undefined && { text }),
        ...(tensor && { tensor: tensorOf(tensor) }),
      },
    ];
  });
  return {
    type: texts(fields, 4)[0]!,
    name: texts(fields, 3)[0] ?? "",
    inputs: texts(fields, 1),
    outputs: texts(fields, 2),
    attributes: new Map(attributes),
  };
}

export function plainModel(bytes: Uint8Array): PlainModel {
  const [graph] = all(fieldsOf(bytes), 7);
  const fields = fieldsOf(graph!);
  const named = (number: number, name: number): string[] =>
    all(fields, number).map((part) => texts(fieldsOf(part), name)[0]!);
  return {
    nodes: all(fields, 1).map(nodeOf),
    tensors: new Map(all(fields, 5).map((part) => [texts(fieldsOf(part), 8)[0]!, tensorOf(part)])),
    inputs: named(11, 1),
    outputs: named(12, 1),
    values: named(13, 1),
  };
}

/** What a model gives for an input, by the names of its outputs. */
export function runModel(
  bytes: Uint8Array,
  shape: readonly number[],
  x: ArrayLike<number>,
): Record<string, Array64> {
  const model = plainModel(bytes);
  const values = new Map(model.tensors);
  values.set(model.inputs.find((name) => !values.has(name))!, { shape, data: Array.from(x) });
  for (const node of model.nodes) {
    const operator = OPERATORS[node.type];
    if (operator === undefined) throw new Error(`no ${node.type} here`);
    const inputs = node.inputs.map((name) => {
      const value = values.get(name);
      if (value === undefined && name !== "") throw new Error(`${node.name}: no value ${name}`);
      return value!;
    });
    values.set(node.outputs[0]!, operator(inputs, node.attributes));
  }
  return Object.fromEntries(model.outputs.map((name) => [name, values.get(name)!]));
}

// ---- operators --------------------------------------------------------------------------------

type Attributes = PlainNode["attributes"];
type Operator = (inputs: readonly Array64[], attributes: Attributes) => Array64;

const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);

/** An array of a shape, filled by index. */
function make(shape: readonly number[], value: (index: readonly number[]) => number): Array64 {
  const data: number[] = [];
  for (const index of indices(shape)) data.push(value(index));
  return { shape, data };
}

function* indices(shape: readonly number[]): Generator<number[]> {
  for (let flat = 0; flat < product(shape); flat++) {
    let left = flat;
    const index = shape.map(() => 0);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis] = left % shape[axis]!;
      left = Math.floor(left / shape[axis]!);
    }
    yield index;
  }
}

const at = ({ shape, data }: Array64, index: readonly number[]): number =>
  data[index.reduce((flat, i, axis) => flat * shape[axis]! + i, 0)]!;

/** At an index of a larger shape, from which axes of size 1 are repeated. */
const spread = (array: Array64, index: readonly number[]): number =>
  at(
    array,
    array.shape.map((size, axis) =>
      size === 1 ? 0 : index[index.length - array.shape.length + axis]!,
    ),
  );

const each =
  (f: (value: number, attributes: Attributes) => number): Operator =>
  ([x], attributes) => ({ shape: x!.shape, data: x!.data.map((v) => f(v, attributes)) });

const two =
  (f: (a: number, b: number) => number): Operator =>
  ([a, b]) => {
    const rank = Math.max(a!.shape.length, b!.shape.length);
    const size = ({ shape }: Array64, axis: number): number =>
      shape[axis - rank + shape.length] ?? 1;
    const shape = Array.from({ length: rank }, (_, axis) =>
      Math.max(size(a!, axis), size(b!, axis)),
    );
    return make(shape, (index) => f(spread(a!, index), spread(b!, index)));
  };

/** How a window goes over an image: strides, and zeros before and after it. */
function windowOf(attributes: Attributes, spatial: number, auto = /^(NOTSET|VALID)$/) {
  const list = (name: string, fallback: number, length = spatial): number[] => {
    const given = attributes.get(name)?.integers ?? [];
    return given.length > 0 ? given : Array<number>(length).fill(fallback);
  };
  if (!auto.test(attributes.get("auto_pad")?.text ?? "NOTSET")) throw new Error("auto_pad");
  return {
    strides: list("strides", 1),
    dilations: list("dilations", 1),
    pads: list("pads", 0, 2 * spatial),
    outputPadding: list("output_padding", 0),
  };
}

const convolution: Operator = ([x, w, b], attributes) => {
  const [n, , ...image] = x!.shape as [number, number, ...number[]];
  const [outs, ins, ...kernel] = w!.shape as [number, number, ...number[]];
  const groups = attributes.get("group")?.integer ?? 1;
  const { strides, dilations, pads } = windowOf(attributes, kernel.length);
  const sizes = image.map((size, i) => {
    const covered = dilations[i]! * (kernel[i]! - 1) + 1;
    return Math.floor((size + pads[i]! + pads[i + kernel.length]! - covered) / strides[i]!) + 1;
  });
  return make([n, outs, ...sizes], ([example, o, ...place]) => {
    let sum = b?.data[o!] ?? 0;
    const first = Math.floor(o! / (outs / groups)) * ins;
    for (const [i, ...tap] of indices([ins, ...kernel])) {
      const from = tap.map((k, d) => place[d]! * strides[d]! + k * dilations[d]! - pads[d]!);
      if (from.some((p, d) => p < 0 || p >= image[d]!)) continue;
      sum += at(w!, [o!, i!, ...tap]) * at(x!, [example!, first + i!, ...from]);
    }
    return sum;
  });
};

const transposed: Operator = ([x, w, b], attributes) => {
  const [n, ins, ...image] = x!.shape as [number, number, ...number[]];
  const [, outs, ...kernel] = w!.shape as [number, number, ...number[]];
  const groups = attributes.get("group")?.integer ?? 1;
  const { strides, dilations, pads, outputPadding } = windowOf(attributes, kernel.length, /./);
  const whole = image.map(
    (size, i) =>
      strides[i]! * (size - 1) + outputPadding[i]! + dilations[i]! * (kernel[i]! - 1) + 1,
  );
  // Where the sizes of the output are given, what is more than these is taken off on both sides.
  const same = attributes.get("auto_pad")?.text?.startsWith("SAME");
  const wanted =
    attributes.get("output_shape")?.integers ??
    (same ? image.map((size, i) => size * strides[i]!) : null);
  const sizes = wanted ?? whole.map((size, i) => size - pads[i]! - pads[i + kernel.length]!);
  if (wanted) for (const [i, size] of sizes.entries()) pads[i] = Math.trunc((whole[i]! - size) / 2);
  const y = make([n, outs * groups, ...sizes], ([, o]) => b?.data[o!] ?? 0);
  const data = [...y.data];
  for (const [example, i, ...place] of indices(x!.shape)) {
    const first = Math.floor(i! / (ins / groups)) * outs;
    for (const [o, ...tap] of indices([outs, ...kernel])) {
      const to = tap.map((k, d) => place[d]! * strides[d]! + k * dilations[d]! - pads[d]!);
      if (to.some((p, d) => p < 0 || p >= sizes[d]!)) continue;
      const index = [example!, first + o!, ...to];
      const flat = index.reduce((sum, p, axis) => sum * y.shape[axis]! + p, 0);
      data[flat]! += at(w!, [i!, o!, ...tap]) * at(x!, [example!, i!, ...place]);
    }
  }
  return { shape: y.shape, data };
};

const norm: Operator = ([x, scale, b, mean, variance], attributes) => {
  const epsilon = attributes.get("epsilon")?.float ?? Math.fround(1e-5);
  return make(x!.shape, (index) => {
    const c = index[1]!;
    const spreadOf = Math.sqrt(variance!.data[c]! + epsilon);
    return ((at(x!, index) - mean!.data[c]!) / spreadOf) * scale!.data[c]! + b!.data[c]!;
  });
};

const matrix = ([a, b]: readonly Array64[]): Array64 => {
  const inner = b!.shape[0]!;
  return make([...a!.shape.slice(0, -1), b!.shape[1]!], (index) => {
    let sum = 0;
    const row = index.slice(0, -1);
    for (let k = 0; k < inner; k++) sum += at(a!, [...row, k]) * at(b!, [k, index.at(-1)!]);
    return sum;
  });
};

const flipped = (x: Array64): Array64 =>
  make([x.shape[1]!, x.shape[0]!], ([i, j]) => at(x, [j!, i!]));

const gemm: Operator = ([a, b, c], attributes) => {
  const [left, right] = [
    attributes.get("transA")?.integer ? flipped(a!) : a!,
    attributes.get("transB")?.integer ? flipped(b!) : b!,
  ];
  const alpha = attributes.get("alpha")?.float ?? 1;
  const beta = attributes.get("beta")?.float ?? 1;
  const y = matrix([left, right]);
  return make(y.shape, (i) => alpha * at(y, i) + (c === undefined ? 0 : beta * spread(c, i)));
};

const maxPool: Operator = ([x], attributes) => {
  const kernel = attributes.get("kernel_shape")!.integers;
  const [n, channels, ...image] = x!.shape as [number, number, ...number[]];
  const { strides, pads } = windowOf(attributes, kernel.length);
  const sizes = image.map((size, i) =>
    Math.floor((size + pads[i]! + pads[i + kernel.length]! - kernel[i]!) / strides[i]! + 1),
  );
  return make([n, channels, ...sizes], ([example, c, ...place]) => {
    let most = -Infinity;
    for (const tap of indices(kernel)) {
      const from = tap.map((k, d) => place[d]! * strides[d]! + k - pads[d]!);
      if (from.some((p, d) => p < 0 || p >= image[d]!)) continue;
      most = Math.max(most, at(x!, [example!, c!, ...from]));
    }
    return most;
  });
};

/** The mean over some axes, which stay with size 1 if `keeps`. */
function mean(x: Array64, axes: readonly number[], keeps: boolean): Array64 {
  const kept = x.shape.map((size, axis) => (axes.includes(axis) ? 1 : size));
  const over = x.shape.map((size, axis) => (axes.includes(axis) ? size : 1));
  const y = make(kept, (index) => {
    let sum = 0;
    for (const offset of indices(over))
      sum += at(
        x,
        index.map((i, axis) => i + offset[axis]!),
      );
    return sum / product(over);
  });
  return keeps ? y : { ...y, shape: kept.filter((_, axis) => !axes.includes(axis)) };
}

const OPERATORS: Readonly<Record<string, Operator>> = {
  BatchNormalization: norm,
  Conv: convolution,
  ConvTranspose: transposed,
  MatMul: matrix,
  Gemm: gemm,
  MaxPool: maxPool,
  Add: two((a, b) => a + b),
  Mul: two((a, b) => a * b),
  Identity: each((x) => x),
  Dropout: each((x) => x), // At test time.
  Relu: each((x) => Math.max(x, 0)),
  Tanh: each(Math.tanh),
  Sigmoid: each((x) => 1 / (1 + Math.exp(-x))),
  Elu: each((x) => (x < 0 ? Math.expm1(x) : x)),
  HardSwish: each((x) => x * Math.min(1, Math.max(0, x / 6 + 0.5))),
  HardSigmoid: each((x, attributes) => {
    const alpha = attributes.get("alpha")?.float ?? 0.2;
    return Math.min(1, Math.max(0, alpha * x + (attributes.get("beta")?.float ?? 0.5)));
  }),
  GlobalAveragePool: ([x]) => mean(x!, x!.shape.map((_, axis) => axis).slice(2), true),
  ReduceMean: ([x], attributes) =>
    mean(x!, attributes.get("axes")!.integers, attributes.get("keepdims")?.integer !== 0),
  Constant: (_, attributes) => attributes.get("value")!.tensor!,
  Shape: ([x]) => ({ shape: [x!.shape.length], data: x!.shape }),
  Gather: ([x, index], attributes) => {
    if ((attributes.get("axis")?.integer ?? 0) !== 0) throw new Error("axis");
    const rest = x!.shape.slice(1);
    const taken = index!.data.map((i) => (i < 0 ? i + x!.shape[0]! : i));
    return make([...index!.shape, ...rest], (place) => {
      const which = place
        .slice(0, index!.shape.length)
        .reduce((sum, p, axis) => sum * index!.shape[axis]! + p, 0);
      return at(x!, [taken[which]!, ...place.slice(index!.shape.length)]);
    });
  },
  Unsqueeze: ([x, given], attributes) => {
    const axes = given?.data ?? attributes.get("axes")!.integers;
    const shape = [...x!.shape];
    for (const axis of axes) shape.splice(axis, 0, 1);
    return { shape, data: x!.data };
  },
  Reshape: ([x, sizes]) => {
    const shape = sizes!.data.map((size, axis) => (size === 0 ? x!.shape[axis]! : size));
    const known = product(shape.filter((size) => size !== -1));
    return { shape: shape.map((s) => (s === -1 ? x!.data.length / known : s)), data: x!.data };
  },
  Transpose: ([x], attributes) => {
    const order = attributes.get("perm")!.integers;
    return make(
      order.map((axis) => x!.shape[axis]!),
      (index) =>
        at(
          x!,
          x!.shape.map((_, axis) => index[order.indexOf(axis)]!),
        ),
    );
  },
  Concat: (parts, attributes) => {
    const axis = attributes.get("axis")!.integer!;
    const sizes = parts.map(({ shape }) => shape[axis]!);
    const total = sizes.reduce((a, b) => a + b, 0);
    return make(
      parts[0]!.shape.map((size, i) => (i === axis ? total : size)),
      (index) => {
        let [part, place] = [0, index[axis]!];
        while (place >= sizes[part]!) place -= sizes[part++]!;
        return at(
          parts[part]!,
          index.map((i, k) => (k === axis ? place : i)),
        );
      },
    );
  },
};
