// The gradient of an activation: dy counts where the value that the activation was given lies strictly between its
// limits, and is 0 elsewhere. That value is not kept from the forward traversal. It is made again from x, and from
// the residual if there was one, a few values at a time, so that it never leaves the cache.

import { termsOfRow } from "./channel.js";
import type { AffineMachine, Machine } from "./machine.js";
import { type At, NOWHERE } from "./memory.js";
import type { Pass } from "./plan.js";

/** Values that are made again at a time: 16 KiB, half of a first-level cache. They lie in `Memory.scratch`. */
const FLOATS = 4096;

const after = <What extends string>(at: At<What>, values: number): At<What> =>
  (at === NOWHERE ? at : at + values * 4) as At<What>;

/** Writes the gated dy of rows to g, which may be dy. The terms of the forward traversal lie in kernel memory. */
export function gateRows(
  pass: Pass<Machine>,
  g: At<"out">,
  dy: At<"a">,
  x: At<"b">,
  add: At<"c">,
  rows: number,
  width: number,
  stride: number,
): void {
  const { wasm, memory } = pass.machine;
  const { low, high } = pass.limits!;
  const v = memory.scratch;
  const pitch = stride / 4;
  const height = pitch === width ? Math.floor(FLOATS / width) : 1;
  for (let row = 0; row < rows; row += height) {
    const n = Math.min(height, rows - row);
    const at = row * pitch;
    affineOf(pass).affineStrips(outOf(v), inOf(after(x, at)), termsOfRow(pass), n, width, stride);
    wasm.gateValues(after(g, at), after(dy, at), v, after(add, at), low, high, n * width);
  }
}

/** The same of planes, which lie as in a step (walk.ts). */
export function gatePlanes(
  pass: Pass<Machine>,
  g: At<"out">,
  dy: At<"a">,
  x: At<"b">,
  add: At<"c">,
  first: number,
  planes: number,
  channels: number,
  inner: number,
): void {
  const { wasm, memory } = pass.machine;
  const { low, high } = pass.limits!;
  const v = memory.scratch;
  const together = Math.max(1, Math.floor(FLOATS / inner));
  for (let plane = 0; plane < planes; plane += together) {
    const n = Math.min(together, planes - plane);
    const channel = (first + plane) % channels;
    for (let within = 0; within < inner; within += FLOATS) {
      const width = Math.min(FLOATS, inner - within);
      const at = plane * inner + within;
      const { at: terms } = memory.terms;
      affineOf(pass).affinePlanes(outOf(v), inOf(after(x, at)), terms, channel, n, channels, width);
      wasm.gateValues(after(g, at), after(dy, at), v, after(add, at), low, high, n * width);
    }
  }
}

// Here x is the second tensor of the pass and the scratch is what the kernel writes.
const affineOf = (pass: Pass<AffineMachine>): AffineMachine["wasm"] => pass.machine.wasm;
const outOf = (at: At<"scratch">): At<"out"> => at as number as At<"out">;
const inOf = (at: At<"b">): At<"a"> => at as number as At<"a">;
