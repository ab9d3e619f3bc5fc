// Counts how often each value of a graph is used. A value may be used by operations of the graph, as an
// output of the network, and inside the bodies of If, Loop and Scan, which can use all values of the graph
// around them.

import type { Range } from "../protobuf.js";
import { type Graph, textOf, textsOf } from "./graph.js";
import { ATTRIBUTE, GRAPH, NODE, TENSOR, VALUE_INFO } from "./schema.js";

/** The uses of the values of a graph. */
export interface Uses {
  /** How often each value is used, by name. */
  readonly counts: Map<string, number>;
  /** All names in the graph and in its bodies. The name of a new value must not be among them. */
  readonly names: Set<string>;
}

/** Counts the uses of the values of a graph. */
export function usesOf(graph: Graph): Uses {
  const { wire, operations, initializers, outputs, declared } = graph;
  const counts = new Map<string, number>();
  const names = new Set([...initializers.keys(), ...declared.keys()]);
  const use = (name: string): void => {
    if (name !== "") counts.set(name, (counts.get(name) ?? 0) + 1);
    names.add(name);
  };
  outputs.forEach(use);
  // Bodies may have operations with bodies of their own. They wait in a list instead of being visited by recursive
  // calls, because a malformed file may nest them more deeply than the call stack allows.
  const bodies: Range[] = [];
  const look = (node: Range): void => {
    for (const attribute of wire.parts(node, NODE.attribute)) {
      bodies.push(...wire.parts(attribute, ATTRIBUTE.graph));
      bodies.push(...wire.parts(attribute, ATTRIBUTE.graphs));
    }
  };
  for (const { inputs, outputs: made, field } of operations) {
    inputs.forEach(use);
    for (const name of made) names.add(name);
    look(field);
  }
  for (let body = bodies.pop(); body !== undefined; body = bodies.pop()) {
    // The outputs of a body are counted as well, since a body may return a value of the graph around it.
    for (const output of wire.parts(body, GRAPH.output)) use(textOf(wire, output, VALUE_INFO.name));
    for (const tensor of wire.parts(body, GRAPH.initializer)) {
      names.add(textOf(wire, tensor, TENSOR.name));
    }
    for (const node of wire.parts(body, GRAPH.node)) {
      textsOf(wire, node, NODE.input).forEach(use);
      for (const name of textsOf(wire, node, NODE.output)) names.add(name);
      look(node);
    }
  }
  return { counts, names };
}
