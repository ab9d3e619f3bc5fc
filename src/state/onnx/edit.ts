// Changes the main graph of a file: its fields can be rewritten, left out or added. All other fields keep
// their bytes, also those whose meaning this package does not know.

import { joined, lengthOf } from "../bytes.js";
import { BinaryWriter, type Field, type Range, type Wire, WireType } from "../protobuf.js";
import type { Graph } from "./graph.js";
import {
  ATTRIBUTE,
  DIMENSION,
  GRAPH,
  MODEL,
  NODE,
  SHAPE,
  TENSOR,
  TENSOR_TYPE,
  TYPE,
  VALUE_INFO,
  VALUES,
} from "./schema.js";
import type { Tensor } from "./tensor.js";

/** Before this version of the file format, every initializer had to be listed among the graph's inputs as well. */
const INITIALIZERS_ALONE = 4;

/** Collects changes to a graph; `finish` gives a copy of its file with these changes. */
export class Edit {
  readonly #graph: Graph;
  /** The new bytes of each field that changes, by where the field starts; no bytes if it is left out. */
  readonly #fields = new Map<number, Uint8Array>();
  readonly #added = new BinaryWriter();

  constructor(graph: Graph) {
    this.#graph = graph;
  }

  /** Gives a field of the graph a new value: the message that `fill` writes. */
  replace({ start, number }: Field, fill: (writer: BinaryWriter) => void): void {
    const writer = new BinaryWriter();
    writer.message(number, () => fill(writer));
    this.#fields.set(start, writer.finish());
  }

  /** Leaves a field of the graph out of the copy. */
  leaveOut({ start }: Field): void {
    this.#fields.set(start, new Uint8Array(0));
  }

  /** Adds a field to the graph, whose value is the message that `fill` writes. */
  add(number: number, fill: (writer: BinaryWriter) => void): void {
    this.#added.message(number, () => fill(this.#added));
  }

  /**
   * Gives a tensor other values. An initializer, or the tensor that a Constant node holds, is changed in its
   * place. If an operation makes the tensor in another way, an initializer of the same name replaces the operation.
   */
  setTensor({ name, type, dimensions }: Tensor, values: Uint8Array): void {
    const { wire, initializers, makers } = this.#graph;
    const initializer = initializers.get(name);
    if (initializer !== undefined) {
      this.replace(initializer, (writer) => this.#values(writer, initializer, values));
      return;
    }
    const { type: maker, field } = makers.get(name)!;
    const place = maker === "Constant" ? placeOf(wire, field) : null;
    if (place === null) {
      this.leaveOut(field);
      this.addTensor(name, type, dimensions, values);
      return;
    }
    const [attribute, tensor] = place;
    this.replace(field, (writer) =>
      this.#copy(writer, field, attribute, () =>
        this.#copy(writer, attribute, tensor, () => this.#values(writer, tensor, values)),
      ),
    );
  }

  /** Adds an initializer, and also an input of the same name if the version of the file format asks for one. */
  addTensor(name: string, type: number, dimensions: readonly number[], values: Uint8Array): void {
    this.add(GRAPH.initializer, (writer) => writeTensor(writer, name, type, dimensions, values));
    if (this.#graph.irVersion >= INITIALIZERS_ALONE) return;
    this.add(GRAPH.input, (writer) => writeValue(writer, name, type, dimensions));
  }

  /** Copies a message, with the message that `fill` writes in place of one of its fields. */
  #copy(writer: BinaryWriter, message: Range, { start, number }: Field, fill: () => void): void {
    this.#graph.wire.copy(writer, message, (field) => {
      if (field.start !== start) return false;
      writer.message(number, fill);
      return true;
    });
  }

  /** Copies the message of a tensor, with new values in place of the old ones. */
  #values(writer: BinaryWriter, tensor: Range, values: Uint8Array): void {
    this.#graph.wire.copy(writer, tensor, ({ number }) => VALUES.includes(number));
    writer.data(TENSOR.raw, values);
  }

  /** A copy of the file with all changes. It is allocated once, at its final length, since models can be large. */
  finish(): Uint8Array {
    const { wire, field: graph } = this.#graph;
    const added = this.#added.finish();
    if (this.#fields.size === 0 && added.length === 0) return wire.bytes.slice();
    const inside = Array.from(
      wire.fields(graph),
      (field) => this.#fields.get(field.start) ?? wire.whole(field),
    );
    inside.push(added);
    const tag = new BinaryWriter().tag(MODEL.graph, WireType.LengthDelimited);
    return joined([
      wire.bytes.subarray(0, graph.start),
      tag.varint(lengthOf(inside)).finish(),
      ...inside,
      wire.bytes.subarray(graph.end),
    ]);
  }
}

/** The attribute in which a Constant node holds its tensor, and that tensor; `null` if it holds none. */
function placeOf(wire: Wire, node: Field): [attribute: Field, tensor: Field] | null {
  for (const attribute of wire.parts(node, NODE.attribute)) {
    const tensor = wire.last(attribute, ATTRIBUTE.tensor);
    if (tensor) return [attribute, tensor];
  }
  return null;
}

/** Writes the fields of a tensor's message. */
export function writeTensor(
  writer: BinaryWriter,
  name: string,
  type: number,
  dimensions: readonly number[],
  values: Uint8Array,
): void {
  for (const size of dimensions) writer.integer(TENSOR.dims, size);
  writer.integer(TENSOR.type, type);
  writer.text(TENSOR.name, name);
  writer.data(TENSOR.raw, values);
}

/**
 * Writes the fields of the message that declares the name, type and shape of a value.
 *
 * @param sizes one entry for each axis of the value: its size, a name for a size that is left open, or `null`. `null`
 * in their place if not even the number of axes is known.
 */
export function writeValue(
  writer: BinaryWriter,
  name: string,
  type: number,
  sizes: readonly (number | string | null)[] | null,
): void {
  writer.text(VALUE_INFO.name, name);
  const shape = (): void => {
    for (const size of sizes ?? []) {
      writer.message(SHAPE.dimension, () => {
        if (typeof size === "number") writer.integer(DIMENSION.value, size);
        else if (size !== null) writer.text(DIMENSION.parameter, size);
      });
    }
  };
  writer.message(VALUE_INFO.type, () =>
    writer.message(TYPE.tensor, () => {
      writer.integer(TENSOR_TYPE.element, type);
      if (sizes !== null) writer.message(TENSOR_TYPE.shape, shape);
    }),
  );
}
