// Layers that are given no kernels use one shared instance per realm. A frozen layer also works with less, and only
// asks here whether there is a shared instance. So bundles with frozen layers alone do not carry the class `Kernels`.

import type { Machine } from "./machine.js";

/** What this file needs to know of a `Kernels`. */
export interface MachineOwner {
  readonly machine: Machine;
}

let shared: MachineOwner | undefined;

/** The shared instance; undefined until somebody has needed one. */
export const sharedSoFar = (): MachineOwner | undefined => shared;

/** Makes an instance the shared one. */
export function share(owner: MachineOwner): void {
  shared = owner;
}
