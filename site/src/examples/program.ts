// The program that the examples of a page make together: the text of each step as it stands now, and how it is run.

import { open } from "../nested.js";
import type { Answer, Program } from "./protocol.js";

/** What a run shows while it goes on, and at its end. */
export interface Outcome {
  readonly text: string;
  readonly state: "running" | "done" | "failed" | "stopped";
  /** Milliseconds that the program took, without the time to load it. */
  readonly time?: number;
}

/** A step of the program of this page. */
interface Step {
  readonly code: () => string;
}

const steps = new Map<number, Step>();

/** Makes an example a step of the program; returns what takes it away again. */
export function register(step: number, code: () => string): () => void {
  const entry = { code };
  steps.set(step, entry);
  return () => {
    if (steps.get(step) === entry) steps.delete(step);
  };
}

/** The texts of all steps up to one. */
const codesUpTo = (last: number): string[] =>
  [...steps]
    .filter(([step]) => step <= last)
    .sort(([a], [b]) => a - b)
    .map(([, { code }]) => code());

/** Runs the program up to a step and tells what that step prints; returns what stops it. */
export function run(
  last: number,
  files: Readonly<Record<string, string>>,
  show: (outcome: Outcome) => void,
): () => void {
  const steps = codesUpTo(last);
  const make = (): Worker =>
    new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  let text = "";
  const stop = open<Program, Answer>(
    make,
    { steps, files },
    {
      begin() {
        text = "";
        show({ text, state: "running" });
      },
      hear(data) {
        if ("done" in data) end({ text, state: "done", time: data.done });
        else if ("failed" in data) {
          const where = data.step < steps.length - 1 ? `In example ${data.step + 1}: ` : "";
          end({ text: `${text}${where}${data.failed}\n`, state: "failed" });
        } else if (data.step === steps.length - 1) {
          text += data.text;
          show({ text, state: "running" });
        }
      },
      fail(message) {
        end({ text: `${text}${message || "The example could not be loaded."}\n`, state: "failed" });
      },
    },
  );
  const end = (outcome: Outcome): void => {
    stop();
    show(outcome);
  };
  return () => end({ text, state: "stopped" });
}
