// A graph that can be changed. It knows which operation makes and which operations take each value, lets
// operations be rewired or left out and tensors get other values, and writes the file that results. A
// constant that nothing takes any more is left out of the file.

import { isSame } from "../bytes.js";
import { Edit } from "./edit.js";
import type { Operation } from "./graph.js";
import { textOf } from "./graph.js";
import type { Model } from "./norms.js";
import { ATTRIBUTE, GRAPH, NODE, VALUE_INFO } from "./schema.js";
import { constantOf, follow, type Tensor } from "./tensor.js";
import { usesOf } from "./uses.js";

/** An operation of the graph, as it is to be in the file that results. */
export interface Step {
  /** The operation as it is in the file that was read. */
  readonly operation: Operation;
  type: string;
  inputs: string[];
  outputs: string[];
  /** The names of attributes that the operation no longer has. */
  readonly dropped: string[];
  state: "kept" | "changed" | "left out";
}

export class Network {
  readonly #model: Model;
  /** How often each value is taken. */
  readonly #counts: Map<string, number>;
  /** All names that are in use, so that new tensors get other ones. */
  readonly #names: Set<string>;
  readonly #steps = new Map<Operation, Step>();
  readonly #makers = new Map<string, Step>();
  /** For each value, the last operation that takes it: the only one, if the value is taken once. */
  readonly #takers = new Map<string, Step>();
  /** The tensors that are new, or have other values than in the file that was read. */
  readonly #tensors = new Map<string, Tensor>();
  /** The names of the tensors that the file does not have. */
  readonly #new = new Set<string>();
  /** The names of values and tensors that the graph no longer has. */
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

  /** How often a value is used: by operations, in the bodies of If, Loop and Scan, and as an output of the network. */
  usesOf(value: string): number {
    return this.#counts.get(value) ?? 0;
  }

  /** The operation of the graph that takes a value, if this is the only use of the value. */
  takerOf(value: string): Step | undefined {
    return this.usesOf(value) === 1 ? this.#takers.get(value) : undefined;
  }

  /** The tensor that a name stands for after the changes so far, or `null` if its values are computed or fed. */
  tensorOf(name: string): Tensor | null {
    const { graph, external } = this.#model;
    const changed = this.#tensors.get(name) ?? this.#tensors.get(follow(graph, name));
    return changed ?? constantOf(graph, name, external);
  }

  /**
   * Gives a step these values as the input numbered `slot`. They replace the values of the tensor that the step
   * takes there, also through Identity operations, if nothing else takes it and its type and dimensions are the
   * same. Otherwise they become a new tensor, whose name is made from `hint`, and the step takes the new tensor
   * instead.
   */
  put(step: Step, slot: number, hint: string, tensor: Omit<Tensor, "name">): void {
    const name = step.inputs[slot] ?? "";
    const before = name === "" ? null : this.tensorOf(name);
    const fits = (other: Tensor): boolean =>
      other.type === tensor.type && `${other.dimensions}` === `${tensor.dimensions}`;
    if (before !== null && fits(before) && this.#isAlone(name, before.name)) {
      this.#tensors.set(before.name, { ...tensor, name: before.name });
      return;
    }
    step.state = "changed";
    this.release(name);
    const fresh = this.#nameFor(
      hint,
      (other) => fits(other) && isSame(other.data(), tensor.data()),
    );
    this.#tensors.set(fresh, { ...tensor, name: fresh });
    this.#names.add(fresh);
    this.#new.add(fresh);
    this.#counts.set(fresh, this.usesOf(fresh) + 1);
    while (step.inputs.length < slot) step.inputs.push("");
    step.inputs[slot] = fresh;
  }

  /** True if a value is taken once, as is each that Identity operations make of the value `source` on the way to it. */
  #isAlone(value: string, source: string): boolean {
    if (this.usesOf(value) !== 1) return false;
    return value === source || this.#isAlone(this.#makers.get(value)!.inputs[0]!, source);
  }

  /**
   * Lets `step` make the value that `other` made (`"outputs"`) or take the value that `other` took (`"inputs"`), and
   * leaves `other` out of the network.
   */
  takeOver(step: Step, other: Step, side: "inputs" | "outputs"): void {
    const [value = ""] = other[side];
    this.#gone.add(step[side][0] ?? "");
    step[side][0] = value;
    step.state = "changed";
    other.state = "left out";
    (side === "inputs" ? this.#takers : this.#makers).set(value, step);
  }

  /**
   * Notes that a value is taken once less. A constant that nothing takes any more is left out of the file, with
   * the operation that makes it and the constants that only this operation takes.
   */
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
      // The name is free for a new tensor.
      this.#names.delete(name);
      this.#makers.delete(name);
      for (const input of maker.inputs) this.release(input);
    }
  }

  /**
   * A name for a new tensor: `hint`, with a number behind it if `hint` is in use. If an earlier new tensor has a
   * name of this kind and is the same, its name is returned, so that layers can share the tensor.
   */
  #nameFor(hint: string, same: (tensor: Tensor) => boolean): string {
    for (let i = 0; ; i++) {
      const name = i === 0 ? hint : `${hint}_${i}`;
      const made = this.#new.has(name) && this.#tensors.get(name);
      if (made && same(made)) return name;
      if (!this.#names.has(name)) return name;
    }
  }

  /** The bytes of a file that holds the network with all changes. */
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
      if (this.#new.has(name)) edit.addTensor(name, type, dimensions, tensor.data());
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
