// Who takes the values of a graph: its operations, the bodies of If, Loop and Scan, which see the values
// around them, and the network's own outputs.

import type { Range } from "../protobuf.js";
import type { Graph } from "./graph.js";
import { ATTRIBUTE, GRAPH, NODE, TENSOR } from "./schema.js";

/** How often each value is taken, by name, and all names that a new one has to differ from. */
export interface Uses {
  readonly counts: Map<string, number>;
  readonly names: Set<string>;
}

export function usesOf(graph: Graph): Uses {
  const { wire, operations, initializers, outputs, ranks } = graph;
  const counts = new Map<string, number>();
  const names = new Set([...initializers.keys(), ...ranks.keys()]);
  const use = (name: string): void => {
    if (name !== "") counts.set(name, (counts.get(name) ?? 0) + 1);
    names.add(name);
  };
  outputs.forEach(use);
  // Graphs inside graphs, not by calls: a file may nest them deeper than those go.
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
    for (const part of wire.fields(body)) {
      // An output of a body counts too: it may be a value from outside.
      if (part.number === GRAPH.output)
        for (const name of wire.parts(part, 1)) use(wire.text(name));
      if (part.number === GRAPH.initializer) {
        for (const name of wire.parts(part, TENSOR.name)) names.add(wire.text(name));
      }
      if (part.number !== GRAPH.node) continue;
      for (const name of wire.parts(part, NODE.input)) use(wire.text(name));
      for (const name of wire.parts(part, NODE.output)) names.add(wire.text(name));
      look(part);
    }
  }
  return { counts, names };
}
