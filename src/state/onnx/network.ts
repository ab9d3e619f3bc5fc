// A graph that changes: who makes and who takes each value, operations rewired or left out, tensors with
// other values, and in the end the file that results. What nothing takes any more goes too.

import { Edit } from "./edit.js";
import type { Operation } from "./graph.js";
import { textOf } from "./graph.js";
import type { Model } from "./norms.js";
import { ATTRIBUTE, GRAPH, NODE, VALUE_INFO } from "./schema.js";
import { constantOf, type Tensor } from "./tensor.js";
import { usesOf } from "./uses.js";

/** An operation as it is to be. */
export interface Step {
  readonly operation: Operation;
  type: string;
  inputs: string[];
  outputs: string[];
  /** Attributes that it has no more. */
  readonly dropped: string[];
  state: "kept" | "changed" | "left out";
}

export class Network {
  readonly #model: Model;
  readonly #counts: Map<string, number>;
  readonly #names: Set<string>;
  readonly #steps = new Map<Operation, Step>();
  readonly #makers = new Map<string, Step>();
  readonly #takers = new Map<string, Step>();
  /** Tensors with other values than before, or that are new. */
  readonly #tensors = new Map<string, Tensor>();
  /** Names of values and tensors that are no more. */
  readonly #gone = new Set<string>();

  constructor(model: Model) {
    this.#model = model;
    const { counts, names } = usesOf(model.graph);
    this.#counts = counts;
    this.#names = names;
    for (const operation of model.graph.operations) {
      const { type, inputs, outputs } = operation;
      const step: Step = {
        operation,
        type,
        inputs: [...inputs],
        outputs: [...outputs],
        dropped: [],
        state: "kept",
      };
      this.#steps.set(operation, step);
      for (const output of outputs) this.#makers.set(output, step);
      for (const input of inputs) this.#takers.set(input, step);
    }
  }

  stepOf(operation: Operation): Step {
    return this.#steps.get(operation)!;
  }

  /** The operation that makes a value. */
  makerOf(value: string): Step | undefined {
    return this.#makers.get(value);
  }

  /** How often a value is taken, the network's outputs included. */
  usesOf(value: string): number {
    return this.#counts.get(value) ?? 0;
  }

  /** The one operation that takes a value, if nothing else does. */
  takerOf(value: string): Step | undefined {
    return this.usesOf(value) === 1 ? this.#takers.get(value) : undefined;
  }

  /** The tensor that a name stands for now, or `null` where it is computed or fed. */
  tensorOf(name: string): Tensor | null {
    const { graph, external } = this.#model;
    return this.#tensors.get(name) ?? constantOf(graph, name, external);
  }

  /** Values for an input of a step: in place of those it has, if nothing else takes them, or beside them. */
  put(step: Step, slot: number, hint: string, tensor: Omit<Tensor, "name" | "range">): void {
    const name = step.inputs[slot] ?? "";
    const before = name === "" ? null : this.tensorOf(name);
    const fits = (other: Tensor): boolean =>
      other.type === tensor.type && `${other.dimensions}` === `${tensor.dimensions}`;
    step.state = "changed";
    if (before?.name === name && this.usesOf(name) === 1 && fits(before)) {
      this.#tensors.set(name, { ...before, ...tensor });
      return;
    }
    this.release(name);
    const fresh = this.#nameFor(hint, (other) => fits(other) && sameBytes(other, tensor));
    this.#tensors.set(fresh, { ...tensor, name: fresh, range: null });
    this.#names.add(fresh);
    this.#counts.set(fresh, this.usesOf(fresh) + 1);
    while (step.inputs.length < slot) step.inputs.push("");
    step.inputs[slot] = fresh;
  }

  /** Makes a step give a value that another gave, which is left out. */
  giveInstead(step: Step, other: Step): void {
    const [value = ""] = other.outputs;
    this.#gone.add(step.outputs[0] ?? "");
    step.outputs[0] = value;
    step.state = "changed";
    other.state = "left out";
    this.#makers.set(value, step);
  }

  /** Makes a step take what another took, which is left out. */
  takeInstead(step: Step, other: Step): void {
    const [value = ""] = other.inputs;
    this.#gone.add(step.inputs[0] ?? "");
    step.inputs[0] = value;
    step.state = "changed";
    other.state = "left out";
    this.#takers.set(value, step);
  }

  /** Takes a value once less. A constant that nothing takes any more goes, and what it was made of. */
  release(name: string): void {
    const left = this.usesOf(name) - 1;
    this.#counts.set(name, left);
    if (left !== 0) return;
    const maker = this.#makers.get(name);
    if (maker === undefined) {
      if (this.#tensors.delete(name) || this.#model.graph.initializers.has(name))
        this.#gone.add(name);
    } else if (/^(Constant|ConstantOfShape|Identity|Transpose)$/.test(maker.type)) {
      maker.state = "left out";
      this.#gone.add(name);
      this.#tensors.delete(name);
      for (const input of maker.inputs) this.release(input);
    }
  }

  /** A name like `hint` that nothing has, or that of a tensor made before which is the same. */
  #nameFor(hint: string, same: (tensor: Tensor) => boolean): string {
    for (let i = 0; ; i++) {
      const name = i === 0 ? hint : `${hint}_${i}`;
      const made = this.#tensors.get(name);
      if (made?.range === null && this.#isNew(name) && same(made)) return name;
      if (!this.#names.has(name)) return name;
    }
  }

  /** True for a tensor that is not in the file. */
  #isNew(name: string): boolean {
    const { makers, initializers } = this.#model.graph;
    return !makers.has(name) && !initializers.has(name);
  }

  /** The file of the network as it is now. */
  finish(): Uint8Array {
    const { graph } = this.#model;
    const { wire, initializers } = graph;
    const edit = new Edit(graph);
    for (const step of this.#steps.values()) {
      if (step.state === "left out") edit.leaveOut(step.operation.field);
      if (step.state === "changed") this.#write(edit, step);
    }
    for (const [name, tensor] of this.#tensors) {
      const { type, dimensions } = tensor;
      if (this.#isNew(name)) edit.addTensor(name, type, dimensions, tensor.data());
      else edit.setTensor(tensor, tensor.data());
    }
    for (const [name, field] of initializers) if (this.#gone.has(name)) edit.leaveOut(field);
    for (const field of wire.fields(graph.field)) {
      const { number } = field;
      if (number !== GRAPH.valueInfo && number !== GRAPH.input) continue;
      if (this.#gone.has(textOf(wire, field, VALUE_INFO.name))) edit.leaveOut(field);
    }
    return edit.finish();
  }

  #write(edit: Edit, { operation, type, inputs, outputs, dropped }: Step): void {
    const { wire } = this.#model.graph;
    const rewritten: readonly number[] = [NODE.input, NODE.output, NODE.type];
    edit.replace(operation.field, (writer) => {
      for (const name of inputs) writer.text(NODE.input, name);
      for (const name of outputs) writer.text(NODE.output, name);
      writer.text(NODE.type, type);
      wire.copy(
        writer,
        operation.field,
        (part) =>
          rewritten.includes(part.number) ||
          (part.number === NODE.attribute && dropped.includes(textOf(wire, part, ATTRIBUTE.name))),
      );
    });
  }
}

const sameBytes = (a: Pick<Tensor, "data">, b: Pick<Tensor, "data">): boolean => {
  const [x, y] = [a.data(), b.data()];
  return x.length === y.length && x.every((byte, i) => byte === y[i]);
};
