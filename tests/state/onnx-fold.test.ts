// Whole ONNX models folded: the same outputs from fewer nodes, by a plain runner in float64, and every norm
// that stays with its reason.

import { OptionError, ShapeError, StateError } from "batchnorm-wasm";
import { foldOnnx, readOnnx, tapOnnx, writeOnnx } from "batchnorm-wasm/state";
import { describe, expect, test } from "vitest";
import { assertWithin } from "../support/compare.js";
import { goldenBytes, networksGolden } from "../support/golden.js";
import { assertRefuses, wrong } from "../support/refuse.js";
import { type Message, protobuf } from "./files.js";
import { fieldsOf, plainModel, runModel } from "./onnx-run.js";

const bytesOf = (name: string) => goldenBytes(`networks/${name}.onnx`);

/** Throws unless two models give the same to the roundings of folded weights, under the same names. */
function assertSameOutputs(
  before: Uint8Array,
  after: Uint8Array,
  shape: readonly number[],
  x: ArrayLike<number>,
): void {
  const [expected, actual] = [runModel(before, shape, x), runModel(after, shape, x)];
  expect(Object.keys(actual)).toEqual(Object.keys(expected));
  for (const [name, { shape: size, data }] of Object.entries(expected)) {
    expect(actual[name]!.shape).toEqual(size);
    const largest = Math.max(...data.map(Math.abs));
    // A weight and a bias rounded to float32 in every layer, a handful one after another.
    assertWithin(name, actual[name]!.data, data, () => 1e-6 * largest);
  }
}

describe("the activation behind a norm", () => {
  test.each([
    ["dense", "/norm1/BatchNormalization", "relu"],
    ["volume", "/BatchNormalization", null],
  ] as const)("of %s", (name, layer, activation) => {
    const file = readOnnx(bytesOf(name));
    const quiet = { onWarning: () => {} };
    expect(file.load(layer, quiet).activation).toBe(null);
    expect(file.load(layer, { ...quiet, withActivation: true }).activation).toBe(activation);
  });

  test("is none where something else takes the value as well", () => {
    const parts = (...others: ReturnType<typeof node>[]) => [
      norm("x", "n"),
      ...others,
      ...parameters(),
    ];
    const activationOf = (...others: ReturnType<typeof node>[]) =>
      readOnnx(modelOf({ parts: parts(...others) })).load("n", { withActivation: true }).activation;
    const relu = node("Relu", ["n"], "y");
    expect(activationOf(relu)).toBe("relu");
    expect(activationOf(relu, node("Relu", ["n"], "z"))).toBe(null);
    expect(activationOf(relu, node("Add", ["n", "x"], "z"))).toBe(null);
    expect(activationOf(node("Sigmoid", ["n"], "y"))).toBe(null);
  });
});

describe("networks that PyTorch exported", () => {
  /** What stays, with a part of the reason. */
  const KEPT: Readonly<Record<string, readonly [string, RegExp][]>> = {
    residual: [],
    mobile: [],
    dense: [
      ["/norm1/BatchNormalization", /^its input "x" is fed; its output goes to Relu$/],
      ["/norm2/BatchNormalization", /comes from Concat, but .*; its output goes to Relu$/],
      ["/norm4/BatchNormalization", /expected 0 or "valid" .* normalize the zeros too, got \[1, 1/],
    ],
    upward: [
      ["/norm/BatchNormalization", /^its input comes from Concat; its output goes to Relu$/],
    ],
    perceptron: [],
    signal: [
      ["/norm/BatchNormalization", /^its input comes from Reshape; its output goes to Relu$/],
    ],
    volume: [
      ["/BatchNormalization", /^its input comes from Unsqueeze; its output is the network's/],
    ],
    twice: [],
  };

  test.each(Object.entries(networksGolden()))("%s", (name, { shape, x }) => {
    const original = bytesOf(name);
    const { bytes, folded, kept } = foldOnnx(original);
    expect(original).toEqual(bytesOf(name));
    expect(kept.map((each) => each.name)).toEqual(KEPT[name]!.map(([layer]) => layer));
    kept.forEach(({ reason }, i) => {
      expect(reason).toMatch(KEPT[name]![i]![1]);
    });
    const { layers } = readOnnx(original);
    expect([...folded, ...kept.map((each) => each.name)].sort()).toEqual([...layers].sort());
    expect(readOnnx(bytes).layers).toEqual(kept.map((each) => each.name));
    assertSameOutputs(original, bytes, shape, x);
    const count = (model: Uint8Array) => plainModel(model).nodes.length;
    expect(count(bytes)).toBeLessThanOrEqual(count(original) - folded.length);
    expect(foldOnnx(bytes)).toEqual({ bytes, folded: [], kept });
  });

  test("a weight that is used elsewhere is copied, once for all that are the same", () => {
    const { tensors } = plainModel(foldOnnx(bytesOf("twice")).bytes);
    expect([...tensors.keys()].sort()).toEqual([
      "conv.bias",
      "conv.bias_1",
      "conv.weight",
      "conv.weight_1",
    ]);
  });

  test("what a norm had of its own goes with it", () => {
    const { tensors, values } = plainModel(foldOnnx(bytesOf("residual")).bytes);
    expect([...tensors.keys()].filter((name) => /running|^bn|block\.[14]/.test(name))).toEqual([]);
    expect(values).toEqual([]);
  });
});

// ---- models of our own making -------------------------------------------------------------------

const FLOAT = 1;
const list = (values: readonly number[]) => new Uint8Array(Float32Array.from(values).buffer);
const product = (sizes: readonly number[]) => sizes.reduce((a, b) => a * b, 1);

/** An initializer of some values, or of different ones around 0. */
function tensor(name: string, shape: number[], values?: readonly number[]): readonly [5, Message] {
  const data =
    values ?? Array.from({ length: product(shape) }, (_, i) => Math.sin(3 * i + name.length));
  return [5, [...shape.map((n) => [1, n] as const), [2, FLOAT], [8, name], [9, list(data)]]];
}
const integers = (name: string, ...values: number[]): Message[number] => [
  5,
  [[1, name], ...values.map((value) => [8, value] as const)],
];
const integer = (name: string, value: number): Message[number] => [
  5,
  [
    [1, name],
    [3, value],
  ],
];
const text = (name: string, value: string): Message[number] => [
  5,
  [
    [1, name],
    [4, value],
  ],
];
const float = (name: string, value: number): Message[number] => [
  5,
  [
    [1, name],
    [2, Float32Array.of(value)],
  ],
];

type Node = readonly [1, Message];
const node = (type: string, inputs: string[], output: string, ...more: Message): Node => [
  1,
  [...inputs.map((name) => [1, name] as const), [2, output], [3, output], [4, type], ...more],
];
const PARAMETERS = ["s", "b", "m", "v"];
const norm = (input: string, output: string, ...more: Message): Node =>
  node("BatchNormalization", [input, ...PARAMETERS], output, ...more);
/** The tensors of a norm of three channels; `shifts` is false where it maps 0 to 0. */
const parameters = (shifts = true) => [
  tensor("s", [3], [1, -2, 0.5]),
  tensor("b", [3], shifts ? [0.5, 1, -1] : [0, 0, 0]),
  tensor("m", [3], shifts ? [0.25, -1, 2] : [0, 0, 0]),
  tensor("v", [3], [1, 4, 0.25]),
];
const value = (name: string, shape?: readonly number[]): Message => [
  [1, name],
  ...(shape
    ? ([
        [
          2,
          [
            [
              1,
              [
                [1, FLOAT],
                [2, shape.map((n) => [1, [[1, n]]] as const)],
              ],
            ],
          ],
        ],
      ] as const)
    : []),
];

interface Made {
  parts: Message;
  shape?: readonly number[];
  outputs?: readonly string[];
  opset?: number;
  ir?: number;
  also?: Message;
}
/** A model that takes x of a shape, [2, 3, 4, 4] unless given, and gives y. */
function modelOf({ parts, shape = [2, 3, 4, 4], outputs = ["y"], ...given }: Made): Uint8Array {
  const { opset = 13, ir = 8, also = [] } = given;
  const ends = outputs.map((name) => [12, value(name)] as const);
  return protobuf([
    [1, ir],
    [7, [...parts, [11, value("x", shape)], ...ends]],
    [
      8,
      [
        [1, ""],
        [2, opset],
      ],
    ],
    ...also,
  ]);
}

const input = (shape: readonly number[]) =>
  Array.from({ length: product(shape) }, (_, i) => Math.cos(1.3 * i));

describe("is exact for", () => {
  const w = tensor("w", [3, 3, 1, 1]);
  const conv = node("Conv", ["x", "w"], "c");
  /** A norm before a ConvTranspose of a single tap with these attributes. */
  const beforeTransposed = (...attributes: Message) => ({
    parts: [
      norm("x", "n"),
      node("ConvTranspose", ["n", "w"], "y", ...attributes),
      w,
      ...parameters(),
    ],
    nodes: ["ConvTranspose"],
  });
  const cases: Record<string, Made & { nodes: string[] }> = {
    "nodes that change nothing between a Conv, an Add and norms behind them": {
      parts: [
        conv,
        node("Add", ["c", "d"], "e"),
        node("Dropout", ["e"], "f", [2, "mask"]),
        node("Identity", ["f"], "g"),
        norm("g", "h"),
        node("Identity", ["h"], "i"),
        norm("i", "y"),
        w,
        tensor("d", [3, 1, 1]),
        ...parameters(),
      ],
      nodes: ["Conv", "Dropout", "Identity", "Identity"],
    },
    "the same between norms and a Conv behind them": {
      parts: [
        norm("x", "n"),
        node("Identity", ["n"], "o"),
        norm("o", "p"),
        node("Dropout", ["p", "ratio"], "q"),
        node("Identity", ["q"], "r"),
        node("Conv", ["r", "w"], "y"),
        w,
        tensor("ratio", [], [0.5]),
        ...parameters(),
      ],
      nodes: ["Identity", "Dropout", "Identity", "Conv"],
    },
    "a norm before a ConvTranspose of a single tap": beforeTransposed(),
    "the same with strides of 1, dilations, and a padding that takes outputs away":
      beforeTransposed(
        integers("strides", 1, 1),
        integers("dilations", 2, 3),
        integers("pads", 1, 0, 0, 2),
        integers("output_padding", 0, 0),
      ),
    "the same of which the size stays": beforeTransposed(text("auto_pad", "SAME_UPPER")),
    "the same without padding": beforeTransposed(text("auto_pad", "VALID")),
    "a norm before a ConvTranspose of groups that has a bias": {
      shape: [2, 6, 5],
      parts: [
        norm("x", "n"),
        node("ConvTranspose", ["n", "w", "d"], "y", integer("group", 3), integers("strides", 1)),
        tensor("w", [6, 2, 1]),
        tensor("d", [6]),
        tensor("s", [6], [1, -2, 0.5, 3, -1, 2]),
        tensor("b", [6]),
        tensor("m", [6]),
        tensor("v", [6], [1, 4, 0.25, 2, 1, 3]),
      ],
      nodes: ["ConvTranspose"],
    },
    "norms before and behind ConvTransposes of three spatial axes that share their weight": {
      shape: [2, 3, 2, 3, 2],
      parts: [
        norm("x", "n"),
        node("ConvTranspose", ["n", "w"], "c"),
        norm("c", "o"),
        node("Relu", ["o"], "r"),
        norm("r", "p"),
        node("ConvTranspose", ["p", "w"], "y"),
        tensor("w", [3, 3, 1, 1, 1]),
        ...parameters(),
      ],
      nodes: ["ConvTranspose", "Relu", "ConvTranspose"],
    },
    "a norm that maps 0 to 0, before a ConvTranspose with strides": {
      parts: [
        norm("x", "n"),
        node(
          "ConvTranspose",
          ["n", "w"],
          "y",
          integers("strides", 2, 3),
          integers("output_padding", 1, 1),
        ),
        w,
        ...parameters(false),
      ],
      nodes: ["ConvTranspose"],
    },
    "a Conv that has a bias": {
      parts: [
        node("Conv", ["x", "w", "d"], "c"),
        norm("c", "y"),
        w,
        tensor("d", [3]),
        ...parameters(),
      ],
      nodes: ["Conv"],
    },
    "a Conv, an Add of a constant, the norm": {
      parts: [
        node("Conv", ["x", "w", "d"], "c"),
        node("Add", ["a", "c"], "sum"),
        norm("sum", "y"),
        w,
        tensor("d", [3]),
        tensor("a", [1, 3, 1, 1]),
        ...parameters(),
      ],
      nodes: ["Conv"],
    },
    "an Add of one number": {
      parts: [
        conv,
        node("Add", ["c", "a"], "sum"),
        norm("sum", "y"),
        w,
        tensor("a", []),
        ...parameters(),
      ],
      nodes: ["Conv"],
    },
    "two norms behind a Conv": {
      parts: [conv, norm("c", "n"), norm("n", "y"), w, ...parameters()],
      nodes: ["Conv"],
    },
    "two norms before a Conv without zeros": {
      parts: [norm("x", "n"), norm("n", "o"), node("Conv", ["o", "w"], "y"), w, ...parameters()],
      nodes: ["Conv"],
    },
    "a norm of which the Conv behind it sees no zeros: VALID": {
      parts: [
        norm("x", "n"),
        node("Conv", ["n", "w"], "y", text("auto_pad", "VALID")),
        w,
        ...parameters(),
      ],
      nodes: ["Conv"],
    },
    "a norm that maps 0 to 0, before a Conv with zeros": {
      parts: [
        norm("x", "n"),
        node("Conv", ["n", "w"], "y", integers("pads", 1, 1, 1, 1)),
        w,
        ...parameters(false),
      ],
      nodes: ["Conv"],
    },
    "a grouped ConvTranspose": {
      parts: [
        node("ConvTranspose", ["x", "w"], "c", integer("group", 3), integers("strides", 2, 2)),
        norm("c", "y"),
        tensor("w", [3, 1, 3, 3]),
        ...parameters(),
      ],
      nodes: ["ConvTranspose"],
    },
    "a depthwise Conv": {
      parts: [
        node("Conv", ["x", "w"], "c", integer("group", 3), integers("pads", 1, 1, 1, 1)),
        norm("c", "y"),
        tensor("w", [3, 1, 3, 3]),
        ...parameters(),
      ],
      nodes: ["Conv"],
    },
    "MatMul, Add, norm": {
      shape: [4, 5],
      parts: [
        node("MatMul", ["x", "w"], "p"),
        node("Add", ["p", "a"], "sum"),
        norm("sum", "y"),
        tensor("w", [5, 3]),
        tensor("a", [3]),
        ...parameters(),
      ],
      nodes: ["Gemm"],
    },
    "MatMul of a turned weight, norm": {
      shape: [4, 5],
      parts: [
        node("Transpose", ["w"], "t", integers("perm", 1, 0)),
        node("MatMul", ["x", "t"], "p"),
        norm("p", "y"),
        tensor("w", [3, 5]),
        ...parameters(),
      ],
      nodes: ["Gemm"],
    },
    "MatMul of a turned weight that has the name of the folded one, two norms": {
      shape: [4, 5],
      parts: [
        node("Transpose", ["w"], "w_1", integers("perm", 1, 0)),
        node("MatMul", ["x", "w_1"], "p"),
        norm("p", "n"),
        norm("n", "y"),
        tensor("w", [3, 5]),
        ...parameters(),
      ],
      nodes: ["Gemm"],
    },
    "MatMul of a turned constant, norm: the sizes of the constant are not said of the folded weight":
      {
        shape: [4, 5],
        parts: [
          node("Constant", [], "w", [
            5,
            [
              [1, "value"],
              [5, tensor("w", [3, 5])[1]],
            ],
          ]),
          node("Transpose", ["w"], "t", integers("perm", 1, 0)),
          node("MatMul", ["x", "t"], "p"),
          norm("p", "y"),
          [13, value("w", [3, 5])],
          ...parameters(),
        ],
        nodes: ["Gemm"],
      },
    "norm, MatMul": {
      shape: [4, 3],
      parts: [
        norm("x", "n"),
        node("MatMul", ["n", "w"], "y"),
        tensor("w", [3, 2]),
        ...parameters(),
      ],
      nodes: ["Gemm"],
    },
    "Gemm with factors and one number for all": {
      shape: [4, 5],
      parts: [
        node(
          "Gemm",
          ["x", "w", "a"],
          "p",
          integer("transB", 1),
          float("alpha", 2),
          float("beta", -3),
        ),
        norm("p", "y"),
        tensor("w", [3, 5]),
        tensor("a", [1]),
        ...parameters(),
      ],
      nodes: ["Gemm"],
    },
    "norm, Gemm, norm: once from each side": {
      shape: [4, 3],
      parts: [
        norm("x", "n"),
        node("Gemm", ["n", "w", "a"], "p", float("alpha", 0.5)),
        norm("p", "y"),
        tensor("w", [3, 3]),
        tensor("a", [1, 3]),
        ...parameters(),
      ],
      nodes: ["Gemm"],
    },
    "Gemm of rows and columns exchanged, norm": {
      shape: [5, 4],
      parts: [
        node("Gemm", ["x", "w"], "p", integer("transA", 1)),
        norm("p", "y"),
        tensor("w", [5, 3]),
        ...parameters(),
      ],
      nodes: ["Gemm"],
    },
    "constants that nodes make, in a file of before version 4": {
      ir: 3,
      opset: 8,
      parts: [
        node("Constant", [], "w", [
          5,
          [
            [1, "value"],
            [5, tensor("w", [3, 3, 1, 1])[1]],
          ],
        ]),
        node("Constant", [], "m", [
          5,
          [
            [1, "value"],
            [5, tensor("m", [3])[1]],
          ],
        ]),
        conv,
        norm("c", "y"),
        ...parameters().filter(([, [, , [, name]]]) => name !== "m"),
        ...["s", "b", "v"].map((name) => [11, value(name, [3])] as const),
      ],
      nodes: ["Constant", "Conv"],
    },
  };

  test.each(Object.entries(cases))("%s", (_, { nodes, ...made }) => {
    const model = modelOf(made);
    const { bytes, kept: rest } = foldOnnx(model);
    expect(rest).toEqual([]);
    const after = plainModel(bytes);
    expect(after.nodes.map(({ type }) => type)).toEqual(nodes);
    // The norm's tensors are gone, also from the inputs; what is new is there too, if they had to be.
    expect([...after.tensors.keys()].filter((name) => PARAMETERS.includes(name))).toEqual([]);
    expect(after.values).toEqual([]);
    // So are the constants of an Add that was folded: there is no tensor that nothing takes.
    const taken = after.nodes.flatMap(({ inputs }) => inputs);
    expect([...after.tensors.keys()].filter((name) => !taken.includes(name))).toEqual([]);
    const old = made.ir === 3 ? [...after.tensors.keys()] : [];
    expect([...after.inputs].sort()).toEqual([...old, "x"].sort());
    const shape = made.shape ?? [2, 3, 4, 4];
    assertSameOutputs(model, bytes, shape, input(shape));
    expect(foldOnnx(bytes).bytes).toEqual(bytes);
  });
});

describe("stays, with its reason", () => {
  const w = tensor("w", [3, 3, 1, 1]);
  const conv = node("Conv", ["x", "w"], "c");
  const behind = (...more: Message) => [conv, norm("c", "y"), w, ...parameters(), ...more];
  const then = (...more: Message) => [norm("x", "n"), w, ...parameters(), ...more];
  const linear = (inputs: string[], ...attributes: Message) => [
    node("Gemm", inputs, "p", ...attributes),
    norm("p", "y"),
    ...parameters(),
  ];
  const transposed = (attribute: Message[number]): [Made, RegExp[]] => [
    {
      parts: then(node("ConvTranspose", ["n", "w"], "y", attribute, integers("dilations", 2, 2))),
    },
    [/; into: expected "before" for a convTranspose, unless it has a single tap, .*, got "after"$/],
  ];
  const body = [
    [
      1,
      [
        [1, "c"],
        [2, "i"],
        [4, "Relu"],
      ],
    ],
    [12, [[1, "i"]]],
  ] as const;

  const cases: Record<string, [made: Made, reasons: RegExp[]]> = {
    "a Dropout stands between that may be in training mode": [
      {
        parts: [
          conv,
          node("Dropout", ["c", "", "t"], "d"),
          norm("d", "y"),
          w,
          ...parameters(),
          [11, value("t", [])],
        ],
      },
      [/^its input comes from Dropout; its output is the network's/],
    ],
    "the mask of a Dropout is taken, before and after": [
      {
        parts: [
          conv,
          node("Dropout", ["c"], "d", [2, "mask"]),
          norm("d", "n"),
          node("Dropout", ["n"], "y", [2, "mask2"]),
          w,
          ...parameters(),
        ],
        outputs: ["y", "mask", "mask2"],
      },
      [/^its input comes from Dropout; its output goes to Dropout$/],
    ],
    "what an Identity takes is taken elsewhere too": [
      {
        parts: [
          conv,
          node("Identity", ["c"], "d"),
          norm("d", "y"),
          node("Relu", ["c"], "z"),
          w,
          ...parameters(),
        ],
      },
      [/^its input comes from Conv, but "c" is taken elsewhere too;/],
    ],
    "nodes behind it form a circle": [
      {
        parts: [
          norm("x", "n"),
          node("Identity", ["n"], "o"),
          node("Identity", ["o"], "o"),
          node("Relu", ["x"], "y"),
          ...parameters(),
        ],
      },
      [/its output goes to Identity$/],
    ],
    "the Conv's output is the network's too": [
      { parts: behind(), outputs: ["y", "c"] },
      [/^its input comes from Conv, but "c" is taken elsewhere too; its output is the network's/],
    ],
    "the Conv's output is taken twice": [
      { parts: behind(node("Relu", ["c"], "z")) },
      [/^its input comes from Conv, but "c" is taken elsewhere too;/],
    ],
    "the body of an If takes the Conv's output": [
      {
        parts: behind(
          node("If", ["x"], "z", [
            5,
            [
              [1, "then_branch"],
              [6, body],
            ],
          ]),
        ),
      },
      [/^its input comes from Conv, but "c" is taken elsewhere too;/],
    ],
    "bodies in a list": [
      {
        parts: behind(
          node("Any", ["x"], "z", [
            5,
            [
              [1, "bodies"],
              [11, body],
            ],
          ]),
        ),
      },
      [/^its input comes from Conv, but "c" is taken elsewhere too;/],
    ],
    "the sum is taken twice": [
      {
        parts: [
          conv,
          node("Add", ["c", "a"], "sum"),
          norm("sum", "y"),
          node("Relu", ["sum"], "z"),
          w,
          tensor("a", []),
          ...parameters(),
        ],
      },
      [/^its input comes from Add, but "sum" is taken elsewhere too;/],
    ],
    "what is added differs from row to row": [
      {
        parts: [
          conv,
          node("Add", ["c", "a"], "sum"),
          norm("sum", "y"),
          w,
          tensor("a", [3, 4, 1]),
          ...parameters(),
        ],
      },
      [/^what is added to it, "a", is \[3,4,1\], not one value for each of 3 channels;/],
    ],
    "what is added has more axes": [
      {
        parts: [
          conv,
          node("Add", ["c", "a"], "sum"),
          norm("sum", "y"),
          w,
          tensor("a", [1, 1, 3, 1, 1]),
          ...parameters(),
        ],
      },
      [/^what is added to it, "a", is \[1,1,3,1,1\], not/],
    ],
    "two values are added": [
      { parts: [conv, node("Add", ["c", "x"], "sum"), norm("sum", "y"), w, ...parameters()] },
      [/^its input comes from Add; its output is the network's, or a body's$/],
    ],
    "the weight is fed": [
      { parts: behind().filter((part) => part !== w) },
      [/^"w", which Conv takes, is computed or fed;/],
    ],
    "the bias is computed": [
      {
        parts: [
          node("Relu", ["d"], "r"),
          node("Conv", ["x", "w", "r"], "c"),
          norm("c", "y"),
          w,
          tensor("d", [3]),
          ...parameters(),
        ],
      },
      [/^"r", which Conv takes, is computed or fed;/],
    ],
    "a Relu between": [
      { parts: [conv, node("Relu", ["c"], "r"), norm("r", "y"), w, ...parameters()] },
      [/^its input comes from Relu;/],
    ],
    "a Conv of others": [
      {
        parts: [
          node("Conv", ["x", "w"], "c", [7, "com.example"]),
          norm("c", "y"),
          w,
          ...parameters(),
        ],
      },
      [/^its input comes from com\.example\.Conv;/],
    ],
    "an input of three axes of MatMul": [
      {
        parts: [
          node("MatMul", ["x", "k"], "p"),
          norm("p", "y"),
          tensor("k", [4, 3]),
          ...parameters(),
        ],
        shape: [2, 3, 4],
      },
      [/^MatMul beside it works on the last of 3 axes;/],
    ],
    "an unknown number of axes of MatMul": [
      {
        parts: [
          node("Any", ["x"], "u", [7, "com.example"]),
          node("MatMul", ["u", "k"], "p"),
          norm("p", "y"),
          tensor("k", [4, 3]),
          ...parameters(),
        ],
      },
      [/^MatMul beside it works on the last of an unknown number of axes;/],
    ],
    "MatMul whose weight comes first": [
      {
        parts: [
          norm("x", "n"),
          node("MatMul", ["k", "n"], "y"),
          tensor("k", [2, 4]),
          ...parameters(),
        ],
        shape: [4, 3],
      },
      [/; its output goes to MatMul$/],
    ],
    "what Gemm adds differs from row to row": [
      {
        parts: [...linear(["x", "k", "a"]), tensor("k", [5, 3]), tensor("a", [4, 1])],
        shape: [4, 5],
      },
      [/^what is added to it, "a", is \[4,1\], not/],
    ],
    "rows and columns exchanged behind it": [
      {
        parts: [
          norm("x", "n"),
          node("Gemm", ["n", "k"], "y", integer("transA", 1)),
          tensor("k", [4, 3]),
          ...parameters(),
        ],
        shape: [4, 3],
      },
      [/; its output goes to Gemm with rows and columns exchanged$/],
    ],
    "zeros around the Conv behind it": [
      { parts: then(node("Conv", ["n", "w"], "y", integers("pads", 0, 1, 0, 0))) },
      [/^its input "x" is fed; padding: .* normalize the zeros too, got \[0, 1, 0, 0\]$/],
    ],
    "zeros so that the size stays": [
      {
        parts: [
          norm("x", "n"),
          node("Conv", ["n", "k"], "y", text("auto_pad", "SAME_UPPER")),
          tensor("k", [3, 3, 2, 2]),
          ...parameters(),
        ],
      },
      [/; padding: .* normalize the zeros too, got "same"$/],
    ],
    "a transposed Conv of several taps behind it": [
      {
        parts: [
          norm("x", "n"),
          node("ConvTranspose", ["n", "k"], "y"),
          tensor("k", [3, 3, 1, 2]),
          ...parameters(),
        ],
      },
      [/^its input "x" is fed; (into|position): expected "before" for a convTranspose/],
    ],
    "a transposed Conv with strides behind it": transposed(integers("strides", 1, 2)),
    "a transposed Conv with an output padding behind it": transposed(
      integers("output_padding", 0, 1),
    ),
    "a transposed Conv behind it with pads below 0, which add outputs": transposed([
      5,
      [
        [1, "pads"],
        // The varints of 0, 0, -1 and 0.
        [8, Uint8Array.of(0, 0, ...Array<number>(9).fill(255), 1, 0)],
      ],
    ]),
    "a transposed Conv behind it whose output has given sizes": transposed(
      integers("output_shape", 5, 4),
    ),
    "two take it": [
      { parts: then(node("Conv", ["n", "w"], "y"), node("Relu", ["n"], "z")) },
      [/; its output is taken 2 times$/],
    ],
    "training mode": [
      { parts: [conv, norm("c", "y", integer("training_mode", 1)), w, ...parameters()], opset: 14 },
      [/^it is in training mode: it normalizes by the mini-batch$/],
    ],
    "training mode by what is asked for": [
      { parts: [conv, norm("c", "y", [2, "mean"]), w, ...parameters()], opset: 9 },
      [/^it is in training mode/],
    ],
    "statistics by position": [
      { parts: [conv, norm("c", "y", integer("spatial", 0)), w, ...parameters()], opset: 8 },
      [/^it has spatial 0, statistics by position$/],
    ],
    "a variance below 0": [
      {
        parts: [conv, norm("c", "y"), w, ...parameters().slice(0, 3), tensor("v", [3], [1, -1, 1])],
      },
      [/^runningVariance: expected finite numbers/],
    ],
    "a weight beyond float32": [
      {
        parts: [
          conv,
          norm("c", "y"),
          tensor("w", [3, 3, 1, 1], Array(9).fill(2)),
          ...parameters().slice(1),
          tensor("s", [3], [3e38, 3e38, 3e38]),
        ],
      },
      [/^its weight would be too large for float32, or is not finite;/],
    ],
    "other channels": [
      { parts: [conv, norm("c", "y"), tensor("w", [4, 3, 1, 1]), ...parameters()] },
      [/^shape: expected 3 out channels, got 4;/],
    ],
    "groups that divide nothing": [
      {
        parts: [
          node("Conv", ["x", "w"], "c", integer("group", 2)),
          norm("c", "y"),
          w,
          ...parameters(),
        ],
      },
      [/^its weight is \[3,3,1,1\], in 2 groups;/],
    ],
    "a weight of six axes": [
      { parts: [conv, norm("c", "y"), tensor("w", [3, 3, 1, 1, 1, 1]), ...parameters()] },
      [/^its weight "w" has 6 axes;/],
    ],
    "a weight of double": [
      {
        parts: [
          conv,
          norm("c", "y"),
          [
            5,
            [
              [1, 3],
              [1, 1],
              [1, 1],
              [2, 11],
              [8, "w"],
              [9, new Uint8Array(24)],
            ],
          ],
          ...parameters(),
        ],
      },
      [/^tensor "w" is DOUBLE, which folding would round to FLOAT;/],
    ],
  };

  test.each(Object.entries(cases))("%s", (_, [made, reasons]) => {
    const model = modelOf(made);
    const { bytes, folded, kept } = foldOnnx(model);
    expect(folded).toEqual([]);
    expect(kept.length).toBe(reasons.length);
    for (const [i, { reason }] of kept.entries()) expect(reason).toMatch(reasons[i]!);
    expect(bytes).toEqual(model);
    expect(bytes).not.toBe(model);
  });
});

describe("of the file", () => {
  const w = tensor("w", [3, 3, 1, 1]);
  const conv = node("Conv", ["x", "w"], "c");

  test("all else stays as it is, also what is not known", () => {
    const unknown: Message = [[99, "of a later version"]];
    const relu = node("Relu", ["y"], "z", ...unknown);
    const [, weight] = w;
    const model = (...changed: Message) =>
      protobuf([
        ...unknown,
        [1, 8],
        [
          7,
          [
            ...changed,
            relu,
            ...unknown,
            [11, [...value("x", [2, 3, 4, 4]), ...unknown]],
            [12, value("z")],
          ],
        ],
        [
          8,
          [
            [1, ""],
            [2, 13],
          ],
        ],
        ...unknown,
      ]);
    const { bytes } = foldOnnx(
      model(
        node("Conv", ["x", "w"], "c", ...unknown),
        norm("c", "y"),
        [13, value("c")],
        [13, value("y")],
        [5, [...weight, ...unknown]],
        ...parameters(),
      ),
    );
    const { tensors } = plainModel(bytes);
    const [weights, biases] = ["w", "w.bias"].map((name) => list(tensors.get(name)!.data));
    const bias = [
      5,
      [
        [1, 3],
        [2, FLOAT],
        [8, "w.bias"],
        [9, biases!],
      ],
    ] as const;
    // The fields of the Conv that changed come first, the new tensor last.
    const parts = [
      [1, [[1, "x"], [1, "w"], [1, "w.bias"], [2, "y"], [4, "Conv"], [3, "c"], ...unknown]],
      [13, value("y")],
      [5, [...weight.filter(([number]) => number !== 9), ...unknown, [9, weights!]]],
    ] as const;
    const expected = Buffer.from(model(...parts));
    const added = protobuf([bias]);
    const at = expected.lastIndexOf(
      protobuf([
        [
          8,
          [
            [1, ""],
            [2, 13],
          ],
        ],
      ]),
    );
    expect(Buffer.from(bytes).subarray(bytes.length - (expected.length - at))).toEqual(
      expected.subarray(at),
    );
    expect(Buffer.from(bytes).includes(Buffer.from(added))).toBe(true);
    const inner = (file: Uint8Array) => fieldsOf(file).filter(([number]) => number === 7);
    const [[, graph]] = inner(bytes) as [[number, Uint8Array]];
    const [[, wanted]] = inner(expected) as [[number, Uint8Array]];
    expect(Buffer.from(graph)).toEqual(Buffer.concat([wanted, added]));
  });

  test.each([
    ["FLOAT16", 10, [0x00, 0x3c]],
    ["BFLOAT16", 16, [0x80, 0x3f]],
  ] as const)("a weight of %s stays of its type", (_, type, one) => {
    const data = Uint8Array.from([...one, ...one, ...one]);
    const weight = [
      5,
      [
        [1, 3],
        [1, 1],
        [1, 1],
        [2, type],
        [8, "w"],
        [9, data],
      ],
    ] as const;
    const scales = [tensor("s", [3], [1, -2, 0.5]), tensor("b", [3], [0, 1, 2])];
    const averages = [tensor("m", [3], [0, 0, 1]), tensor("v", [3], [1, 4, 0.25])];
    const exact = node("BatchNormalization", ["c", ...PARAMETERS], "y", float("epsilon", 0));
    const parts = [conv, exact, weight, ...scales, ...averages];
    const { bytes, folded } = foldOnnx(modelOf({ parts, shape: [2, 1, 4] }));
    expect(folded).toEqual(["y"]);
    const graph = fieldsOf(bytes).find(([number]) => number === 7)![1] as Uint8Array;
    const tensors = fieldsOf(graph).filter(([number]) => number === 5);
    const found = tensors.map(([, each]) => {
      const fields = fieldsOf(each as Uint8Array);
      const bits = fields.find(([number]) => number === 9)![1] as Uint8Array;
      const values = [...new Uint16Array(bits.slice().buffer)];
      return [fields.find(([number]) => number === 2)![1], ...values];
    });
    // 1, -1, 1 and 0, 1, 1 by their bits.
    const [zero, plus, minus] = type === 10 ? [0, 0x3c00, 0xbc00] : [0, 0x3f80, 0xbf80];
    expect(found).toEqual([
      [type, plus, minus, plus],
      [type, zero, plus, plus],
    ]);
  });

  test("tensors in a file beside it are in the model if they changed", () => {
    const outside = [
      5,
      [
        [1, 3],
        [1, 3],
        [1, 1],
        [1, 1],
        [2, FLOAT],
        [8, "w"],
        [
          13,
          [
            [1, "location"],
            [2, "w.bin"],
          ],
        ],
        [14, 1],
      ],
    ] as const;
    const parts = (weight: Message[number]) => [conv, norm("c", "y"), weight, ...parameters()];
    const model = modelOf({ parts: parts(outside) });
    const inside = modelOf({ parts: parts(w) });
    const external = { "w.bin": w[1].at(-1)![1] as Uint8Array };
    const { bytes, folded } = foldOnnx(model, { external });
    expect(folded).toEqual(["y"]);
    assertSameOutputs(inside, bytes, [2, 3, 4, 4], input([2, 3, 4, 4]));
    const [{ reason } = { reason: "" }] = foldOnnx(model).kept;
    expect(reason).toMatch(
      /^tensor "w": expected the bytes of "w\.bin", a file beside the model, in external/,
    );
  });

  test("what is no model for test time: refused", () => {
    const parts = [conv, norm("c", "y"), w, ...parameters()];
    assertRefuses(StateError, /^opset: expected 7 or later, got 6; onnx\.version_converter/, () =>
      foldOnnx(modelOf({ parts, opset: 6 })),
    );
    assertRefuses(
      StateError,
      /^bytes: expected a model for test time, got one with training_info$/,
      () => foldOnnx(modelOf({ parts, also: [[20, []]] })),
    );
    assertRefuses(ShapeError, /^bytes: expected a Uint8Array or ArrayBuffer, got null$/, () =>
      foldOnnx(wrong(null)),
    );
    assertRefuses(OptionError, /^into: expected an option among external, got "into"$/, () =>
      foldOnnx(modelOf({ parts }), wrong({ into: 1 })),
    );
    expect(foldOnnx(modelOf({ parts: [node("Relu", ["x"], "y")] })).kept).toEqual([]);
  });

  test("a layer with other numbers folds to what it gives", () => {
    const model = bytesOf("mobile");
    const file = readOnnx(model);
    const layers = file.loadAll();
    for (const layer of Object.values(layers)) layer.runningMean.fill(0.25);
    const changed = writeOnnx(layers, { into: model });
    const { shape, x } = networksGolden().mobile!;
    assertSameOutputs(changed, foldOnnx(changed).bytes, shape, x);
  });
});

describe("tapped", () => {
  const { shape, x } = networksGolden().residual!;
  const original = bytesOf("residual");
  const file = readOnnx(original);

  test("gives what comes into its batch norms, after its own outputs", () => {
    const own = plainModel(original).outputs;
    const tapped = tapOnnx(original, file.layers);
    const values = file.layers.map((name) => file.nodes[name]!.input);
    expect(plainModel(tapped).outputs).toEqual([...own, ...values]);
    const results = runModel(tapped, shape, x);
    for (const [name, { input: value, output }] of Object.entries(file.nodes)) {
      const { data, shape: size } = results[value]!;
      const y = file.load(name).infer(Float32Array.from(data), { shape: size });
      const further = runModel(tapOutput(original, output), shape, x)[output]!;
      assertWithin(name, y, further.data, () => 1e-5);
    }
  });

  test("all else stays as it is, byte for byte", () => {
    const graphOf = (bytes: Uint8Array) =>
      Buffer.from(fieldsOf(bytes).find(([number]) => number === 7)![1] as Uint8Array);
    const tapped = tapOnnx(original, ["bn"]);
    expect(graphOf(tapped)).toEqual(
      Buffer.concat([
        graphOf(original),
        // Four axes of FLOAT, by the convolution before the norm.
        protobuf([[12, typed(file.nodes["/bn/BatchNormalization"]!.input, FLOAT, 4)]]),
      ]),
    );
    expect(tapOnnx(original, [])).toEqual(original);
  });

  /** What is declared about a value of a type and, unless that is not known, of so many axes. */
  const typed = (name: string, type: number, rank: number | null): Message => {
    const axes = Array.from({ length: rank ?? 0 }, () => [1, []] as const);
    const shape: Message = rank === null ? [] : [[2, axes]];
    return [
      [1, name],
      [2, [[1, [[1, type], ...shape]]]],
    ];
  };
  /** The new output of a model of these nodes that taps its last norm, "y". */
  const outputOf = (...parts: Message[number][]): Buffer => {
    const tapped = tapOnnx(modelOf({ parts: [...parts, ...parameters()], outputs: ["z"] }), ["y"]);
    const graph = fieldsOf(tapped).find(([number]) => number === 7)![1] as Uint8Array;
    return Buffer.from(fieldsOf(graph).at(-1)![1] as Uint8Array);
  };
  const [HALF, DOUBLE] = [10, 11];
  const declared: Message = [
    [1, "x"],
    [
      2,
      [
        [
          1,
          [
            [1, FLOAT],
            [2, [2, 3, 4, 4].map((n) => [1, [[1, n]]] as const)],
          ],
        ],
      ],
    ],
  ];

  test.each<[string, Message, Message[number][]]>([
    ["of an input: what is declared about it", declared, [norm("x", "y")]],
    [
      "of a value that is declared, whatever is before it",
      typed("c", DOUBLE, 2),
      [node("Custom", ["x"], "c"), [13, typed("c", DOUBLE, 2)], norm("c", "y")],
    ],
    [
      "of a value of which the type alone is declared: the axes follow from what is before it",
      typed("c", HALF, 4),
      [node("Relu", ["x"], "c"), [13, typed("c", HALF, null)], norm("c", "y")],
    ],
    [
      "through a row of operations",
      typed("c", FLOAT, 2),
      [
        node("GlobalAveragePool", ["x"], "a"),
        node("Flatten", ["a"], "b1"),
        node("Dropout", ["b1"], "c"),
        norm("c", "y"),
      ],
    ],
    [
      "of a cast",
      typed("c", HALF, 4),
      [
        node("Cast", ["x"], "a", [
          5,
          [
            [1, "to"],
            [3, HALF],
          ],
        ]),
        node("Relu", ["a"], "c"),
        norm("c", "y"),
      ],
    ],
    [
      "whose axes are not known: without a shape",
      typed("c", FLOAT, null),
      [node("Reshape", ["x", "fed"], "c"), norm("c", "y")],
    ],
    [
      "of another operation: by its name alone",
      [[1, "c"]],
      [node("Custom", ["x"], "c"), norm("c", "y")],
    ],
    [
      "of an operation that changes the type: by its name alone",
      [[1, "c"]],
      [node("Greater", ["x", "x"], "c"), norm("c", "y")],
    ],
    [
      "of a choice, whose first input is a condition",
      typed("c", FLOAT, 4),
      [node("Greater", ["x", "x"], "more"), node("Where", ["more", "x", "x"], "c"), norm("c", "y")],
    ],
    [
      "of a recurrent layer",
      typed("c", FLOAT, 4),
      [node("LSTM", ["x", "w", "r"], "c"), norm("c", "y")],
    ],
    [
      "of a test for NaN: by its name alone",
      [[1, "c"]],
      [node("IsNaN", ["x"], "c"), norm("c", "y")],
    ],
    ["of a circle: by its name alone", [[1, "c"]], [node("Relu", ["c"], "c"), norm("c", "y")]],
  ])("%s", (_, expected, parts) => {
    expect(outputOf(...parts)).toEqual(Buffer.from(protobuf(expected)));
  });

  test("sizes of a constant may be in another file: how many there are tells its axes", () => {
    const size: Message = [
      [1, 1],
      [2, 7],
      [8, "n"],
      [
        13,
        [
          [1, "location"],
          [2, "w.bin"],
        ],
      ],
      [14, 1],
    ];
    const parts: Message[number][] = [node("ConstantOfShape", ["n"], "k"), [5, size]];
    expect(outputOf(...parts, node("Add", ["x", "k"], "c"), norm("c", "y"))).toEqual(
      Buffer.from(protobuf(typed("c", FLOAT, 4))),
    );
  });

  test("a value that is given already is not given twice", () => {
    const parts = [norm("x", "y"), norm("x", "z"), ...parameters()];
    const { outputs } = plainModel(tapOnnx(modelOf({ parts }), ["y", "z", "y"]));
    expect(outputs).toEqual(["y", "x"]);
    const already = modelOf({ parts: [norm("x", "y"), norm("y", "z"), ...parameters()] });
    expect(tapOnnx(already, ["z"])).toEqual(already);
  });

  test("what are no names: refused", () => {
    assertRefuses(OptionError, /^names: expected an array of names, got "bn"$/, () =>
      tapOnnx(original, wrong("bn")),
    );
    assertRefuses(
      OptionError,
      /^name: expected one of "\/bn\/BatchNormalization", .*, got "bn2"$/,
      () => tapOnnx(original, ["bn2"]),
    );
    assertRefuses(ShapeError, /^bytes: expected a Uint8Array/, () => tapOnnx(wrong([]), []));
  });
});

/** The same model with one more output. */
function tapOutput(bytes: Uint8Array, name: string): Uint8Array {
  const fields = fieldsOf(bytes).map(([number, content]): Message[number] =>
    number === 7
      ? [7, Buffer.concat([content as Uint8Array, protobuf([[12, [[1, name]]]])])]
      : [number, content],
  );
  return protobuf(fields);
}
