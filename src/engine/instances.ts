// Makes instances of the binaries on a memory.

import { instantiate } from "../wasm/compile.js";
import { frozenModule, kernelsModule } from "../wasm/embedded.js";
import type { AffineExports, AffineMachine, Exports, Machine, ThreadExports } from "./machine.js";
import type { Buffers, Memory } from "./memory.js";

/** The compiled binary of frozen layers, and the one that other layers have besides. */
type Modules = readonly [frozen: WebAssembly.Module, others: WebAssembly.Module];

/** Starts what a frozen layer needs. The memory is made only after the kernels have been compiled, which may fail. */
export function startFrozen(memoryOf: () => Buffers): AffineMachine {
  const module = frozenModule();
  const memory = memoryOf();
  const exports = instantiate(module, { env: { memory: memory.wasm } });
  return { wasm: exports as unknown as AffineExports, memory };
}

/** Starts what a layer needs, in the same order. */
export function start(memoryOf: () => Memory): Machine {
  const modules = [frozenModule(), kernelsModule()] as const;
  const memory = memoryOf();
  return { wasm: exportsOf(modules, { memory: memory.wasm }) as unknown as Exports, memory };
}

/**
 * The exports of both binaries, with these imports. Not by Object.assign: V8 would look each kernel up in a table, at every
 * call.
 */
const exportsOf = (
  [frozen, others]: Modules,
  env: WebAssembly.ModuleImports,
): WebAssembly.Exports => ({ ...instantiate(frozen, { env }), ...instantiate(others, { env }) });

/** @internal The kernels and the pieces of traversals, which call the kernels, with these imports. */
export function instancesOn(
  env: WebAssembly.ModuleImports,
  [frozen, others, pieces]: readonly [...Modules, WebAssembly.Module],
): [Exports, ThreadExports] {
  const kernels = exportsOf([frozen, others], env);
  const shared = instantiate(pieces, { env, kernels });
  return [kernels as unknown as Exports, shared as unknown as ThreadExports];
}
