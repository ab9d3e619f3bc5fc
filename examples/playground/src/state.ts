/** What the page shows, as signals, and what its controls do. */

import { batch, computed, effect, signal } from "@preact/signals";
import { proxy, wrap } from "comlink";
import { type Digits, PIXELS } from "../../mnist/digits.js";
import { SHIFT } from "../../mnist/shift.js";
import heldOutFile from "../data/held-out.bin?url";
import networkFile from "../data/network.bin?url";
import trainingFile from "../data/training.bin?url";
import { type Answers, answer, inputOf, inputsOf, type Model, modelOf } from "./answer.js";
import { type Examination, type History, MOST_STEPS } from "./lab.js";
import { gunzip, unpackDigits, unpackNetwork } from "./packed.js";
import { type Stroke, toPixels } from "./strokes.js";
import type { Remote } from "./worker.js";

export const BATCH_SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256] as const;
export const DECAYS = [0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999] as const;
/** Training speeds: mini-batches a second, and how many at most before the page is drawn again. */
export const SPEEDS = {
  slow: { label: "4 a second", interval: 250, steps: 1 },
  brisk: { label: "20 a second", interval: 50, steps: 1 },
  full: { label: "full", interval: 0, steps: 50 },
} as const;
export type Speed = keyof typeof SPEEDS;

/** What went wrong, for the reader; `null`: nothing. */
export const failure = signal<string | null>(null);

// What the controls say.
export const batchSize = signal<number>(1);
/** Of the input, in percent; 40 is the demo's shift. */
export const contrast = signal(100);
export const decay = signal<number>(0.9);
export const layer = signal(0);
export const unit = signal(0);
export const speed = signal<Speed>("brisk");
export const strength = computed(() => (100 - contrast.value) / (100 - 100 * SHIFT.contrast));

// The digit: strokes, or one of the examples.
export const strokes = signal<readonly Stroke[]>([]);
export const example = signal<{ readonly image: Uint8Array; readonly label: number } | null>(null);
/** How many strokes were finished, examples taken and strokes undone so far. */
export const finished = signal(0);
export const image = computed(() =>
  strokes.value.length > 0
    ? toPixels(strokes.value)
    : (example.value?.image ?? new Uint8Array(PIXELS)),
);
export const blank = computed(() => strokes.value.length === 0 && example.value === null);
export const input = computed(() => inputOf(image.value, strength.value));

// The network as the worker has it.
export const model = signal<Model | null>(null);
export const own = signal(false);
export const step = signal(0);
export const loss = signal<number | null>(null);
export const history = signal<History | null>(null);
export const examination = signal<Examination | null>(null);
/** Whether the examination is of another shift or batch size than the controls say. */
export const stale = computed(
  () =>
    examination.value?.strength !== strength.value ||
    examination.value.batchSize !== batchSize.value,
);
/** Examinations while it trained. */
export const course = signal<readonly Examination[]>([]);
export const finishedTraining = computed(() => step.value >= MOST_STEPS);

export const heldOut = signal<Digits | null>(null);
/** One held-out digit of each class, as examples. */
export const examples = computed(() => (heldOut.value ? examplesOf(heldOut.value) : []));

// What is going on.
export const playing = signal(false);
const working = signal(false);
/** Trainings that have not ended. One that was stopped ends with the step it is in. */
const underWay = signal(0);
/** What the page shows of the network is about to change. */
export const busy = computed(() => working.value || (underWay.value > 0 && !playing.value));
/** Accuracy before and after the last repair, under the shift it was made at. */
export interface Repair {
  readonly action: "calibrate" | "adapt";
  readonly before: number;
  readonly after: number;
  readonly contrast: number;
}
export const repaired = signal<Repair | null>(null);

const companions = computed(() =>
  heldOut.value
    ? inputsOf(heldOut.value, strength.value, batchSize.value - 1)
    : new Float32Array(0),
);

/** The answers for the digit there is; they follow every point of a stroke. */
export const answers = computed<Answers | null>(() =>
  model.value === null || blank.value ? null : answer(model.value, input.value, companions.value),
);

const loaded = computed(() => model.value !== null);
/** The answers when the last stroke was finished, to be read aloud; none before the first. */
export const announced = signal<Answers | null>(null);
effect(() => {
  if (finished.value > 0 && loaded.value) announced.value = answers.peek();
});

function examplesOf({ images, labels }: Digits): { image: Uint8Array; label: number }[] {
  return Array.from({ length: 10 }, (_, label) => {
    const at = labels.indexOf(label);
    return { image: images.slice(at * PIXELS, (at + 1) * PIXELS), label };
  });
}

export function draw(next: readonly Stroke[]): void {
  strokes.value = next;
  if (next.length > 0) example.value = null;
}

export function endStroke(): void {
  finished.value++;
}

export function choose(chosen: { readonly image: Uint8Array; readonly label: number }): void {
  batch(() => {
    strokes.value = [];
    example.value = chosen;
    finished.value++;
  });
}

export function clear(): void {
  batch(() => {
    strokes.value = [];
    example.value = null;
  });
}

const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
worker.addEventListener("error", ({ message }) => {
  failure.value = message || "The web worker did not start.";
});
const remote = wrap<Remote>(worker);

/** Runs `work`, and once more if it was asked for meanwhile. */
function latest(work: () => Promise<void>): () => Promise<void> {
  let current: Promise<void> | null = null;
  let again = false;
  return () => {
    if (current !== null) {
      again = true;
      return current;
    }
    current = (async () => {
      do {
        again = false;
        await work();
      } while (again);
    })().finally(() => {
      current = null;
    });
    return current;
  };
}

/** Counts the networks. What the worker was asked of one that has been abandoned meanwhile is not shown. */
let network = 0;

/** Fetches what the worker knows of the network. */
async function synchronize(): Promise<void> {
  const asked = network;
  const [state, past] = await Promise.all([
    remote.state(),
    remote.history(layer.peek(), unit.peek()),
  ]);
  if (asked !== network) return;
  batch(() => {
    model.value = modelOf(state);
    own.value = state.own;
    step.value = state.step;
    history.value = past;
  });
}

const examine = latest(async () => {
  const asked = network;
  const found = await remote.examine(strength.peek(), batchSize.peek());
  if (asked !== network) return;
  batch(() => {
    examination.value = found;
    const before = course.peek().filter((one) => one.step < found.step);
    if (playing.peek() || found.step > 0) course.value = [...before, found];
  });
});

const fetchHistory = latest(async () => {
  const asked = network;
  const past = await remote.history(layer.peek(), unit.peek());
  if (asked === network) history.value = past;
});

const reportFailure = (error: unknown): void => {
  failure.value = error instanceof Error ? error.message : String(error);
};

let last: Promise<void> = Promise.resolve();

/** Something the worker does, after whatever was asked of it before. */
function task(work: () => Promise<void>): Promise<void> {
  last = last.then(async () => {
    working.value = true;
    try {
      await work();
      await synchronize();
      await examine();
    } catch (error) {
      reportFailure(error);
    } finally {
      working.value = false;
    }
  });
  return last;
}

/** Milliseconds between two examinations while the network trains. */
const EXAMINE_EVERY = 400;

/** Counts the trainings: one that was stopped, and has not noticed yet, is not to go on with the next. */
let training = 0;

export async function play(): Promise<void> {
  if (playing.peek()) return;
  playing.value = true;
  repaired.value = null;
  const mine = ++training;
  underWay.value++;
  const goesOn = () => playing.peek() && training === mine && !finishedTraining.peek();
  // Another network may be on its way.
  await last;
  const trained = network;
  let examined = 0;
  try {
    while (goesOn()) {
      const start = performance.now();
      const { interval, steps } = SPEEDS[speed.peek()];
      const latest = await remote.advance(steps, 30);
      if (trained !== network) break;
      loss.value = latest;
      await synchronize();
      if (goesOn() && performance.now() - examined > EXAMINE_EVERY) {
        await examine();
        examined = performance.now();
      }
      if (goesOn()) await pause(Math.max(0, interval - (performance.now() - start)));
    }
  } catch (error) {
    reportFailure(error);
  } finally {
    if (training === mine) playing.value = false;
    if (trained === network) await examine().catch(reportFailure);
    underWay.value--;
  }
}

const pause = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));

export function stop(): void {
  playing.value = false;
}

export function stepOnce(): Promise<void> {
  repaired.value = null;
  return task(async () => {
    loss.value = await remote.advance(1);
  });
}

/** Drops what is shown of the network that there is. */
function forget(): void {
  network++;
  batch(() => {
    course.value = [];
    loss.value = null;
    repaired.value = null;
  });
}

const newSeed = (): number => Math.floor(Math.random() * 2 ** 32);

/**
 * Has the worker take another network. The one before is forgotten twice: at once, and when the worker has let go of
 * it, since until then it answers for that one whatever it is asked.
 */
function change(work: () => Promise<void>, then = async (): Promise<void> => {}): Promise<void> {
  playing.value = false;
  forget();
  return task(async () => {
    await work();
    forget();
    await then();
  });
}

/** A new network with random weights. */
export function restart(): Promise<void> {
  return change(() => remote.restart(newSeed()));
}

/** Mini-batches, and decay, of a network whose averages are too young: near their start still. */
export const YOUNG = 50;
export const YOUNG_DECAY = 0.99;

/** A new network with such averages, for `calibrate` to repair. */
export function young(): Promise<void> {
  decay.value = YOUNG_DECAY;
  return change(
    () => remote.restart(newSeed()),
    async () => {
      loss.value = await remote.advance(YOUNG);
    },
  );
}

/** Back to the network the demo trained. */
export function restore(): Promise<void> {
  return change(() => remote.restore());
}

async function repair(action: Repair["action"], work: () => Promise<void>): Promise<void> {
  playing.value = false;
  await task(async () => {
    await examine();
    const before = examination.peek();
    await work();
    await examine();
    const after = examination.peek();
    if (before === null || after === null) return;
    repaired.value = {
      action,
      before: before.adapted ?? before.running,
      after: after.adapted ?? after.running,
      contrast: contrast.peek(),
    };
  });
}

/** 0 … 1 while `calibrate` runs. */
export const calibrating = signal<number | null>(null);

export function calibrate(): Promise<void> {
  return repair("calibrate", async () => {
    const onProgress = proxy((share: number) => {
      calibrating.value = share;
    });
    await remote.calibrate(onProgress).finally(() => {
      calibrating.value = null;
    });
  });
}

export function adapt(): Promise<void> {
  return repair("adapt", () => remote.adapt(strength.peek()));
}

export function undo(): Promise<void> {
  repaired.value = null;
  return task(() => remote.undo());
}

async function load(file: string): Promise<Uint8Array<ArrayBuffer>> {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file}: ${response.status} ${response.statusText}.`);
  return gunzip(new Uint8Array(await response.arrayBuffer()));
}

/** Loads everything; the network comes first, so that it answers before the digits are here. */
export async function open(): Promise<void> {
  try {
    const digits = [load(heldOutFile), load(trainingFile)];
    const network = await load(networkFile);
    const opened: Model = { layers: unpackNetwork(network).layers, adapted: null };
    // Compiled and warm before the first stroke ends.
    answer(opened, new Float32Array(PIXELS), new Float32Array(0));
    model.value = opened;
    const [few, training] = await Promise.all(digits);
    heldOut.value = unpackDigits(few);
    if (blank.peek()) example.value = examples.peek()[7];
    await remote.open({ network, heldOut: few, training });
    await synchronize();
    await examine();
    effect(() => {
      strength.value;
      batchSize.value;
      examine().catch(reportFailure);
    });
    effect(() => {
      layer.value;
      unit.value;
      fetchHistory().catch(reportFailure);
    });
    effect(() => {
      const chosen = decay.value;
      repaired.value = null;
      remote.setDecay(chosen).then(synchronize).then(examine).catch(reportFailure);
    });
  } catch (error) {
    reportFailure(error);
  }
}
