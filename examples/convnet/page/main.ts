/** The page: starts the worker, and draws what it says. */

import "./style.css";
import { BATCH_SIZE, SIZE } from "../sizes.js";
import { polylines } from "./lines.js";
import type { Answer, Outcome, Request, Step } from "./messages.js";

const find = <T extends Element>(selector: string) => document.querySelector<T>(selector) as T;
const form = find<HTMLFormElement>("form");
const button = find<HTMLButtonElement>("button");
const bar = find<HTMLProgressElement>("progress");
const state = find<HTMLElement>("[data-state]");

const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
let history: Step[] = [];

function busy(is: boolean): void {
  for (const control of form.elements) (control as HTMLInputElement).disabled = is;
}

function tell(what: string, text: string): void {
  state.dataset.state = what;
  state.textContent = text;
}

const cell = (name: string, text: string) => {
  find(`[data-cell="${name}"]`).textContent = text;
};

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const data = new FormData(form);
  const request: Request = {
    whose: data.get("whose") === "tfjs" ? "tfjs" : "ours",
    steps: Number(data.get("steps")),
  };
  history = [];
  bar.max = request.steps;
  bar.value = 0;
  for (const name of ["step", "loss", "time", "speed", "accuracy", "one", "difference"])
    cell(name, "–");
  find("[data-examples]").replaceChildren();
  busy(true);
  tell("training", "It trains.");
  worker.postMessage(request);
});

function onStep(now: Step): void {
  history.push(now);
  bar.value = now.step;
  cell("step", `${now.step} of ${bar.max}`);
  cell("loss", now.loss.toFixed(3));
  cell("time", `${now.time.toFixed(1)} ms`);
  cell("speed", `${Math.round((1000 * BATCH_SIZE) / now.time)}`);
  const steps = history.map(({ step }) => step);
  polylines(find("[data-plot=loss]"), steps, [history.map(({ loss }) => loss)], bar.max);
  const channels = now.means.map((_, c) => history.map(({ means }) => means[c]));
  polylines(find("[data-plot=means]"), steps, channels, bar.max);
}

function onTrained({ accuracy, one, difference, examples }: Outcome): void {
  cell("accuracy", `${(100 * accuracy).toFixed(1)} %`);
  cell("one", `${one.toFixed(2)} ms`);
  cell("difference", difference === null ? "not folded" : difference.toExponential(1));
  find("[data-examples]").replaceChildren(...examples.map(picture));
  busy(false);
  tell("trained", "Trained.");
  button.focus();
}

/** A digit with its answer, red where it is wrong. */
function picture({ image, answer, label }: Outcome["examples"][number]): HTMLElement {
  const figure = document.createElement("figure");
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIZE;
  canvas.role = "img";
  canvas.ariaLabel = `a handwritten ${label}`;
  const data = new ImageData(SIZE, SIZE);
  for (const [i, grey] of image.entries()) data.data.set([0, 0, 0, grey], 4 * i);
  canvas.getContext("2d")?.putImageData(data, 0, 0);
  const caption = document.createElement("figcaption");
  caption.textContent = answer === label ? `${answer}` : `${answer}, is ${label}`;
  figure.classList.toggle("wrong", answer !== label);
  figure.append(canvas, caption);
  return figure;
}

worker.addEventListener("message", ({ data }: MessageEvent<Answer>) => {
  if (data.kind === "ready") {
    busy(false);
    tell("ready", `Ready: ${data.digits} digits to train on, ${data.heldOut} held out.`);
  } else if (data.kind === "step") onStep(data);
  else if (data.kind === "trained") onTrained(data);
  else tell("failed", data.message);
});
worker.addEventListener("error", ({ message }) =>
  tell("failed", message || "The worker did not start."),
);
busy(true);
