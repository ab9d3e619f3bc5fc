// Which kernels work for those who were given none: one shared instance per realm. A frozen layer, which can do
// with less, asks here whether there is one; so it does not carry the class `Kernels`.

import type { Machine } from "./machine.js";

/** What a `Kernels` is for. */
export interface MachineOwner {
  readonly machine: Machine;
}

let shared: MachineOwner | undefined;

/** The shared instance, as far as somebody needed it. */
export const sharedSoFar = (): MachineOwner | undefined => shared;

/** Makes an instance the shared one. */
export function share(owner: MachineOwner): void {
  shared = owner;
}
