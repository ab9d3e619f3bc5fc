// Arrays that do not behave: those that hold the right values in an odd way, and those that hold none. What a method
// gives for one of the first is what it gives for a plain array; it refuses each of the second.

import { runInNewContext } from "node:vm";
import { Kernels } from "batchnorm-wasm";
import { transfer } from "../support/transfer.js";

export type Typed = Float32Array | Float64Array | Uint8Array;
export type Kind = "Float32Array" | "Float64Array" | "Uint8Array";

const CLASSES = { Float32Array, Float64Array, Uint8Array };
const PROTOTYPE = Object.getPrototypeOf(Uint8Array.prototype) as object;
const getter = (name: string | symbol): (() => unknown) =>
  Object.getOwnPropertyDescriptor(PROTOTYPE, name)!.get!;
const lengthOf = getter("length");
const set = Float32Array.prototype.set as (values: ArrayLike<number>) => void;

/** What the code of a hostile array throws. No error of ours is one. */
export class Ran extends Error {}

const ran = (): never => {
  throw new Ran("code of a user's array was run");
};

/** The values of an array, read without running any code of it. */
export function valuesIn(array: Typed): number[] {
  const length = lengthOf.call(array) as number;
  return Array.from({ length }, (_, i) => array[i]!);
}

/** True for typed arrays of any kind, however they are disguised. */
export const isTyped = (value: unknown): value is Typed =>
  ArrayBuffer.isView(value) && !(getter(Symbol.toStringTag).call(value) === undefined);

const plain = (kind: Kind, values: readonly number[]): Typed => CLASSES[kind].from(values);

/** An array over a buffer that `make` gives, behind `lead` bytes. */
function over(
  kind: Kind,
  values: readonly number[],
  make: (bytes: number) => ArrayBufferLike,
  lead = 0,
) {
  const size = CLASSES[kind].BYTES_PER_ELEMENT;
  const array = new CLASSES[kind](
    make(lead + values.length * size) as ArrayBuffer,
    lead,
    values.length,
  );
  array.set(values);
  return array;
}

/** Buffers that can change their size, which TypeScript's ES2022 does not know. */
const Resizable = ArrayBuffer as unknown as new (
  bytes: number,
  options: { maxByteLength: number },
) => ArrayBuffer & { resize(bytes: number): void };
const Growable = SharedArrayBuffer as unknown as new (
  bytes: number,
  options: { maxByteLength: number },
) => SharedArrayBuffer & { grow(bytes: number): void };
const resizable = (bytes: number) => new Resizable(bytes, { maxByteLength: bytes + 64 });

/** Members that lie, each in its own way. */
function lying(kind: Kind, values: readonly number[]): Typed {
  const array = plain(kind, values);
  const other = new CLASSES[kind](values.length + 9).fill(77);
  const lies: Record<string | symbol, unknown> = {
    length: values.length + 5,
    byteLength: 4,
    byteOffset: 4,
    buffer: other.buffer,
    constructor: Float64Array,
    set() {},
    subarray: () => other,
    slice: () => other,
    map: () => other,
    fill: () => other,
    every: () => true,
    [Symbol.iterator]: function* () {
      yield* other;
    },
  };
  for (const key of Reflect.ownKeys(lies)) {
    Object.defineProperty(array, key, { value: lies[key as string] });
  }
  return array;
}

/** A subclass all of whose members throw, its constructor and species too. */
function throwing(kind: Kind, values: readonly number[]): Typed {
  const array = plain(kind, values);
  const members: PropertyDescriptorMap = {};
  for (
    let at: object | null = CLASSES[kind].prototype;
    at !== null;
    at = Object.getPrototypeOf(at)
  ) {
    for (const key of Reflect.ownKeys(at)) members[key as string] = { get: ran, set: ran };
  }
  Object.setPrototypeOf(array, Object.create(CLASSES[kind].prototype as object, members));
  return array;
}

/** Any look at any property but the values throws. */
function guardedByProxy(kind: Kind, values: readonly number[]): Typed {
  const array = plain(kind, values);
  const handler = { get: ran, has: ran, set: ran, getPrototypeOf: ran };
  return Object.setPrototypeOf(array, new Proxy({}, handler));
}

/** Classes whose constructors take rows and columns, as people write them. */
const MATRICES = {
  Float32Array: class extends Float32Array {
    constructor(rows: number, columns: number) {
      super(rows * columns);
    }
  },
  Float64Array: class extends Float64Array {
    constructor(rows: number, columns: number) {
      super(rows * columns);
    }
  },
  Uint8Array: class extends Uint8Array {
    constructor(rows: number, columns: number) {
      super(rows * columns);
    }
  },
};

function matrix(kind: Kind, values: readonly number[]): Typed {
  const array = new MATRICES[kind](values.length, 1);
  set.call(array, values);
  return array;
}

export const OWN = new Kernels({ memory: 1 << 20 });
const others = new Kernels({ memory: 1 << 20 });

/** A tensor that is freed again by `release`, once the call is over. */
const tensors: [Kernels, Float32Array][] = [];
function tensor(kernels: Kernels, values: readonly number[]): Float32Array {
  const array = kernels.alloc(values.length);
  tensors.push([kernels, array]);
  array.set(values);
  return array;
}

/** Frees the tensors that were made for a call. */
export function release(): void {
  for (const [kernels, array] of tensors.splice(0)) kernels.free(array);
}

type Make = (kind: Kind, values: readonly number[]) => unknown;
const floats =
  (make: (values: readonly number[]) => Float32Array): Make =>
  (kind, values) =>
    kind === "Float32Array" ? make(values) : plain(kind, values);

/** Arrays that hold these values. */
export const RIGHT: Readonly<Record<string, Make>> = {
  plain,
  "a part": (kind, values) => over(kind, values, (bytes) => new ArrayBuffer(bytes + 8), 8),
  "a throwing subclass": throwing,
  "behind a throwing proxy": guardedByProxy,
  "with lying members": lying,
  "a matrix": matrix,
  "of another realm": (kind, values) =>
    runInNewContext("globalThis[kind].from(values)", { kind, values }),
  shared: (kind, values) => over(kind, values, (bytes) => new SharedArrayBuffer(bytes)),
  resizable: (kind, values) => over(kind, values, resizable, 8),
  "tracking its buffer": (kind, values) => {
    const array = new CLASSES[kind](resizable(values.length * CLASSES[kind].BYTES_PER_ELEMENT));
    array.set(values);
    return array;
  },
  "tracking a shared buffer": (kind, values) => {
    const bytes = values.length * CLASSES[kind].BYTES_PER_ELEMENT;
    const array = new CLASSES[kind](new Growable(bytes, { maxByteLength: bytes + 64 }) as never);
    (array as Float32Array).set(values);
    return array;
  },
  "a tensor": floats((values) => tensor(OWN, values)),
  "a part of a tensor": floats((values) => {
    const array = tensor(OWN, [0, ...values, 0]).subarray(1, values.length + 1);
    return Object.setPrototypeOf(array, Object.create(Float32Array.prototype));
  }),
  "a tensor of other kernels": floats((values) => tensor(others, values)),
};

/** What is no such array. */
export const WRONG: Readonly<Record<string, Make>> = {
  detached: (kind, values) => {
    const array = plain(kind, values);
    transfer(array);
    return array;
  },
  "out of the bounds of its buffer": (kind, values) => {
    const array = over(kind, values, resizable, 16);
    (array.buffer as ReturnType<typeof resizable>).resize(16);
    return array;
  },
  "a proxy": (kind, values) => new Proxy(plain(kind, values), { get: ran }),
  "a revoked proxy": (kind, values) => {
    const { proxy, revoke } = Proxy.revocable(plain(kind, values), {});
    revoke();
    return proxy;
  },
  "of another type": (kind, values) =>
    kind === "Float64Array" ? Float32Array.from(values) : Float64Array.from(values),
  "of half precision, or a view of bytes": (_kind, values) =>
    new DataView(new ArrayBuffer(values.length)),
  "an Array": (_kind, values) => [...values],
  "one value too long": (kind, values) => plain(kind, [...values, 1]),
  "a fake": (kind) => Object.create(CLASSES[kind].prototype),
  "a symbol": () => Symbol("array"),
  "a string": () => "array",
};
