// Files of torch.save as the tests make them and look into them: an assembler of pickles, and a plain
// reader of what PyTorch writes, both apart from the code under test.
//
// A pickle is put together as text whose characters are bytes.

import { zip } from "./zip-files.js";

const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "latin1"));
const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");

/** Little-endian numbers. */
const little = (size: number, value: number): string => {
  const view = new DataView(new ArrayBuffer(8));
  view.setBigInt64(0, BigInt(value), true);
  return textOf(new Uint8Array(view.buffer, 0, size));
};

// ---- the assembler ------------------------------------------------------------------------------

/** A value of a pickle: the opcodes that push it. */
export type Code = string;

export const whole = (value: number): Code => `J${little(4, value)}`;
export const long = (value: number): Code => `\x8a\x08${little(8, value)}`;
export const float = (value: number): Code => {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, value);
  return `G${textOf(new Uint8Array(view.buffer))}`;
};
export const text = (value: string): Code => {
  const bytes = textOf(new TextEncoder().encode(value));
  return `X${little(4, bytes.length)}${bytes}`;
};
export const tuple = (...values: Code[]): Code => `(${values.join("")}t`;
export const list = (...values: Code[]): Code => `](${values.join("")}e`;
export const named = (path: string): Code => {
  const dot = path.lastIndexOf(".");
  return `c${path.slice(0, dot)}\n${path.slice(dot + 1)}\n`;
};
export const call = (path: string, ...args: Code[]): Code => `${named(path)}${tuple(...args)}R`;
export const dict = (entries: Record<string, Code>, made = "}"): Code =>
  `${made}(${Object.entries(entries)
    .map(([name, value]) => text(name) + value)
    .join("")}u`;
export const NONE: Code = "N";
export const ORDERED: Code = call("collections.OrderedDict");

/** An object of a class with attributes. */
export const object = (path: string, attributes: Record<string, Code>): Code =>
  `${named(path)})\x81${dict(attributes)}b`;

export interface PlainView {
  type?: string;
  key?: string;
  /** How many values the storage has. */
  length?: number;
  offset?: number;
  shape?: number[];
  strides?: number[];
  /** Arguments after the usual ones. */
  more?: Code[];
  function?: string;
}

const sizes = (values: readonly number[]): Code => tuple(...values.map(long));

/** A tensor of a storage. */
export function tensor(view: PlainView = {}): Code {
  const { type = "torch.FloatStorage", key = "0", length = 3, offset = 0, more = [] } = view;
  const { shape = [length], strides = shape.map(() => 1) } = view;
  const storage = `${tuple(text("storage"), named(type), text(key), text("cpu"), long(length))}Q`;
  return call(
    `torch._utils.${view.function ?? "_rebuild_tensor_v2"}`,
    storage,
    long(offset),
    sizes(shape),
    sizes(strides),
    "\x89",
    ORDERED,
    ...more,
  );
}

/** A batch norm of torch.nn, or another module. */
export function module(
  path: string,
  parts: {
    parameters?: Record<string, Code>;
    buffers?: Record<string, Code>;
    modules?: Record<string, Code>;
    more?: Record<string, Code>;
  },
): Code {
  return object(path, {
    _parameters: dict(parts.parameters ?? {}, ORDERED),
    _buffers: dict(parts.buffers ?? {}, ORDERED),
    _modules: dict(parts.modules ?? {}, ORDERED),
    ...parts.more,
  });
}

/** The bytes of a pickle of this value. */
export const pickle = (value: Code, protocol = 2): Uint8Array =>
  bytesOf(`\x80${String.fromCharCode(protocol)}${value}.`);

const f32 = (values: readonly number[]): Uint8Array =>
  new Uint8Array(Float32Array.from(values).buffer);

/** Storages, by key: of float32 values, or of any bytes. */
export type Storages = Record<string, readonly number[] | Uint8Array>;

/** The storages that {@link tensor} has unless told otherwise: 1, 2, 3. */
export const ONE_TWO_THREE: Storages = { 0: [1, 2, 3] };

/** A file as since PyTorch 1.6. */
export function archive(
  value: Code | Uint8Array,
  storages: Storages = ONE_TWO_THREE,
  more: Record<string, string> = {},
): Uint8Array {
  return zip([
    { name: "model/data.pkl", data: typeof value === "string" ? pickle(value) : value },
    ...Object.entries(storages).map(([key, values]) => ({
      name: `model/data/${key}`,
      data: values instanceof Uint8Array ? values : f32(values),
      padding: 5,
    })),
    ...Object.entries(more).map(([name, data]) => ({ name: `model/${name}`, data: bytesOf(data) })),
    { name: "model/version", data: bytesOf("3\n") },
  ]);
}

export const MAGIC = "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/** A file as before PyTorch 1.6. */
export function row(
  value: Code,
  storages: Storages = ONE_TWO_THREE,
  change: { machine?: Code; keys?: Code; size?: number; protocol?: number } = {},
): Uint8Array {
  const { machine = dict({ little_endian: "\x88" }), size = 4, protocol = 2 } = change;
  const keys = change.keys ?? list(...Object.keys(storages).map(text));
  const data = Object.values(storages).map((values) => {
    const bytes = values instanceof Uint8Array ? values : f32(values);
    return little(8, bytes.length / size) + textOf(bytes);
  });
  const pickles = [MAGIC.slice(2, -1), "M\xe9\x03", machine, value, keys].map((each) => {
    // From protocol 4 on each is in a frame.
    const frame = protocol < 4 ? "" : `\x95${little(8, each.length + 1)}`;
    return `\x80${String.fromCharCode(protocol)}${frame}${each}.`;
  });
  return bytesOf(pickles.join("") + data.join(""));
}

// ---- the plain reader ---------------------------------------------------------------------------

export interface PlainTorchTensor {
  dtype: string;
  shape: number[];
  /** Of float32 and float64 tensors. */
  values: number[];
}

/** A dict or an object of a file: its entries, those of its attributes among them. */
export class PlainDict {
  readonly entries = new Map<unknown, unknown>();
}

const TYPES: Record<string, [string, number]> = {
  FloatStorage: ["F32", 4],
  DoubleStorage: ["F64", 8],
  HalfStorage: ["F16", 2],
  BFloat16Storage: ["BF16", 2],
  LongStorage: ["I64", 8],
};

/**
 * All dicts and objects in a file, as PyTorch would read them.
 *
 * @throws an Error for what a file of PyTorch has not; this reader is no more than it has to be.
 */
export function plainTorch(file: Uint8Array): PlainDict[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const dicts: PlainDict[] = [];
  const storages: Record<string, { data: Uint8Array; type: string }> = {};
  const later: (() => void)[] = [];
  let root = "";

  const made = (callable: string, args: unknown[]): unknown => {
    if (callable.startsWith("torch._utils._rebuild_tensor")) {
      const [{ key, type }, offset, shape, strides] = args as [
        { key: string; type: string; length: number },
        number,
        number[],
        number[],
      ];
      const [dtype, size] = TYPES[type] ?? [type, 0];
      const result: PlainTorchTensor = { dtype, shape, values: [] };
      later.push(() => {
        if (dtype !== "F32" && dtype !== "F64") return;
        const { data } = storages[key]!;
        const numbers = new DataView(data.buffer, data.byteOffset, data.byteLength);
        const walk = (axis: number, at: number): void => {
          if (axis === shape.length) {
            const value =
              dtype === "F32"
                ? numbers.getFloat32(at * size, true)
                : numbers.getFloat64(at * size, true);
            result.values.push(value);
            return;
          }
          for (let i = 0; i < shape[axis]!; i++) walk(axis + 1, at + i * strides[axis]!);
        };
        // Larger ones are of no batch norm here.
        if (shape.reduce((a, b) => a * b, 1) < 1000) walk(0, offset);
      });
      return result;
    }
    if (callable === "torch._utils._rebuild_parameter") return args[0];
    if (callable === "torch._tensor._rebuild_from_type_v2") {
      return made(args[0] as string, args[2] as unknown[]);
    }
    const result = new PlainDict();
    dicts.push(result);
    return result;
  };

  const interpret = (start: number, end: number): [unknown, number] => {
    let at = start;
    const marks: unknown[][] = [];
    let stack: unknown[] = [];
    const memo = new Map<number, unknown>();
    const take = (size: number): number => {
      at += size;
      if (at > end) throw new Error("end");
      return at - size;
    };
    const byte = (): number => view.getUint8(take(1));
    const uint = (): number => view.getUint32(take(4), true);
    const string = (length: number): string => {
      const begin = take(length);
      return new TextDecoder("utf-8", { fatal: true }).decode(file.slice(begin, begin + length));
    };
    const line = (): string => {
      const begin = at;
      while (byte() !== 10);
      return new TextDecoder("utf-8", { fatal: true }).decode(file.slice(begin, at - 1));
    };
    const pop = (): unknown => {
      if (stack.length === 0) throw new Error("nothing");
      return stack.pop();
    };
    const popMark = (): unknown[] => {
      const values = stack;
      stack = marks.pop()!;
      return values;
    };
    const set = (pairs: unknown[]): void => {
      const target = stack.at(-1) as PlainDict;
      for (let i = 0; i < pairs.length; i += 2) target.entries.set(pairs[i], pairs[i + 1]);
    };
    for (;;) {
      const opcode = String.fromCharCode(byte());
      if (opcode === ".") return [pop(), at];
      else if (opcode === "\x80") take(1);
      else if (opcode === "\x95") take(8);
      else if (opcode === "N") stack.push(null);
      else if (opcode === "\x88" || opcode === "\x89") stack.push(opcode === "\x88");
      else if (opcode === "K") stack.push(byte());
      else if (opcode === "M") stack.push(view.getUint16(take(2), true));
      else if (opcode === "J") stack.push(view.getInt32(take(4), true));
      else if (opcode === "\x8a") {
        const length = byte();
        const begin = take(length);
        const low = file.slice(begin, begin + length);
        stack.push(low.reduceRight((sum, each) => sum * 256 + each, 0));
      } else if (opcode === "G") stack.push(view.getFloat64(take(8)));
      else if (opcode === "X") stack.push(string(uint()));
      else if (opcode === "\x8c") stack.push(string(byte()));
      else if (opcode === "c") stack.push(`${line()}.${line()}`);
      else if (opcode === "\x93") {
        const name = pop();
        stack.push(`${pop()}.${name}`);
      } else if (opcode === ")") stack.push([]);
      else if (opcode === "]") stack.push([]);
      else if (opcode === "\x8f") stack.push([]);
      else if (opcode === "}") stack.push(made("dict", []));
      else if (opcode === "(") {
        marks.push(stack);
        stack = [];
      } else if (opcode === "t") {
        const values = popMark();
        stack.push(values);
      } else if (opcode === "\x85") stack.push([pop()]);
      else if (opcode === "\x86" || opcode === "\x87") {
        const values = [pop(), pop()];
        if (opcode === "\x87") values.push(pop());
        stack.push(values.reverse());
      } else if (opcode === "a") {
        const value = pop();
        (stack.at(-1) as unknown[]).push(value);
      } else if (opcode === "e" || opcode === "\x90") {
        const values = popMark();
        if (Array.isArray(stack.at(-1))) (stack.at(-1) as unknown[]).push(...values);
      } else if (opcode === "s") {
        const value = pop();
        set([pop(), value]);
      } else if (opcode === "u") set(popMark());
      else if (opcode === "b") {
        const state = pop();
        const target = stack.at(-1);
        if (target instanceof PlainDict && state instanceof PlainDict) {
          for (const [key, value] of state.entries) target.entries.set(key, value);
        }
      } else if (opcode === "R" || opcode === "\x81") {
        const args = pop() as unknown[];
        stack.push(made(pop() as string, args));
      } else if (opcode === "Q") {
        const [kind, type, key, , length] = pop() as [string, string, string, string, number];
        if (kind === "storage") {
          const name = type.slice(type.lastIndexOf(".") + 1);
          storages[key] ??= { data: new Uint8Array(0), type: name };
          stack.push({ key, type: name, length });
        } else stack.push(type);
      } else if (opcode === "h") stack.push(memo.get(byte()));
      else if (opcode === "j") stack.push(memo.get(uint()));
      else if (opcode === "q") memo.set(byte(), stack.at(-1));
      else if (opcode === "r") memo.set(uint(), stack.at(-1));
      else if (opcode === "\x94") memo.set(memo.size, stack.at(-1));
      else throw new Error(`opcode ${opcode}`);
    }
  };

  if (file[0] === 0x50) {
    const places = placesIn(view);
    const name = [...places.keys()].find((each) => each.endsWith("/data.pkl"))!;
    root = name.slice(0, -"data.pkl".length);
    interpret(...places.get(name)!);
    for (const [key, storage] of Object.entries(storages)) {
      storage.data = file.subarray(...places.get(`${root}data/${key}`)!);
    }
  } else {
    let at = 0;
    let value: unknown;
    for (let i = 0; i < 5; i++) [value, at] = interpret(at, file.length);
    for (const key of value as string[]) {
      const storage = storages[key]!;
      const begin = at + 8;
      at = begin + Number(view.getBigInt64(at, true)) * TYPES[storage.type]![1];
      storage.data = file.subarray(begin, at);
    }
  }
  for (const fill of later) fill();
  return dicts;
}

/** Where the entries of an archive begin and end. */
function placesIn(view: DataView): Map<string, [number, number]> {
  let end = view.byteLength - 22;
  while (view.getUint32(end, true) !== 0x06054b50) end--;
  let at = view.getUint32(end + 16, true);
  const places = new Map<string, [number, number]>();
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    const [size, name, extra, comment] = [
      view.getUint32(at + 24, true),
      view.getUint16(at + 28, true),
      view.getUint16(at + 30, true),
      view.getUint16(at + 32, true),
    ];
    const local = view.getUint32(at + 42, true);
    const begin = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const bytes = new Uint8Array(view.buffer, view.byteOffset + at + 46, name);
    places.set(textOf(bytes), [begin, begin + size]);
    at += 46 + name + extra + comment;
  }
  return places;
}

/** The entries of an archive by name. */
plainTorch.entries = (file: Uint8Array): Map<string, Uint8Array> => {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  return new Map(
    [...placesIn(view)].map(([name, [begin, end]]) => [name, file.subarray(begin, end)]),
  );
};
