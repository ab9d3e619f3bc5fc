/** The web worker: a `Lab`, made when the files have come. */

import { expose } from "comlink";
import { type Files, Lab } from "./lab.js";

let lab: Lab | null = null;
let last: Promise<unknown> = Promise.resolve();

/** One after the other: `calibrate` waits in between, and nothing may train meanwhile. */
function inTurn<A extends unknown[], R>(
  work: (lab: Lab, ...given: A) => R | Promise<R>,
): (...given: A) => Promise<R> {
  return (...given) => {
    const next = async () => {
      if (lab === null) throw new Error("expected `open` first.");
      return await work(lab, ...given);
    };
    const result = last.then(next, next);
    last = result;
    return result;
  };
}

const remote = {
  open: (files: Files): void => {
    lab = new Lab(files);
  },
  restore: inTurn((lab) => lab.restore()),
  restart: inTurn((lab, seed: number) => lab.restart(seed)),
  state: inTurn((lab) => lab.state()),
  advance: inTurn((lab, steps: number, milliseconds?: number) => lab.advance(steps, milliseconds)),
  setDecay: inTurn((lab, decay: number) => lab.setDecay(decay)),
  history: inTurn((lab, layer: number, unit: number) => lab.history(layer, unit)),
  examine: inTurn((lab, strength: number, size: number) => lab.examine(strength, size)),
  calibrate: inTurn((lab, onProgress: (share: number) => unknown) => lab.calibrate(onProgress)),
  adapt: inTurn((lab, strength: number) => lab.adapt(strength)),
  undo: inTurn((lab) => lab.undo()),
};

export type Remote = typeof remote;
expose(remote);
