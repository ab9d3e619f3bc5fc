// The program that the examples of a page make together: the text of each step as it stands now, and how it is run.

import type { Answer } from "./protocol.js";

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
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  const program = codesUpTo(last);
  let text = "";
  const end = (outcome: Outcome): void => {
    worker.terminate();
    show(outcome);
  };
  worker.addEventListener("error", ({ message }) =>
    end({ text: `${text}${message || "The example could not be loaded."}\n`, state: "failed" }),
  );
  worker.addEventListener("message", ({ data }: MessageEvent<Answer>) => {
    if ("done" in data) end({ text, state: "done", time: data.done });
    else if ("failed" in data) {
      const where = data.step < program.length - 1 ? `In example ${data.step + 1}: ` : "";
      end({ text: `${text}${where}${data.failed}\n`, state: "failed" });
    } else if (data.step === program.length - 1) {
      text += data.text;
      show({ text, state: "running" });
    }
  });
  worker.postMessage({ steps: program, files });
  show({ text, state: "running" });
  return () => end({ text, state: "stopped" });
}
