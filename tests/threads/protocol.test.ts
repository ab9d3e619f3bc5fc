// Every order in which the steps of a caller and of workers can follow each other, on the very file that they run
// (assembly/protocol.ts). A state is what the shared words hold and where each thread is; all states that can be
// reached are visited once.

import { describe, expect, test } from "vitest";
import { EPOCH, memoryOf, S, SLEEPERS, STOP, Thread } from "../support/protocol.js";

interface Setting {
  readonly workers: number;
  /** The pieces of each call. */
  readonly calls: readonly number[];
  /**
   * Whether a worker may stop for good at any step, and the caller may give up waiting. Then workers are terminated, which
   * ends them at once; or, "slowly", they may go on, and nothing comes after that call.
   */
  readonly deaths: boolean | "slowly";
  /** Whether a call may be cut short at any step of the caller, which ends it before it begins the next one. */
  readonly cuts?: boolean;
  /** Whether a piece that a worker has begun may be done again; if not, a call that is given up throws. */
  readonly repeatable: boolean;
  /** Whether sleepers are woken for a call. */
  readonly wakes: boolean;
  /**
   * Whether a step goes on through what no other thread can notice or change. It leaves out orders that make no
   * difference (partial-order reduction), and so more workers can be gone through: see `#goesOn`.
   */
  readonly isCoarse: boolean;
  /** A mistake: two of workers, and that of a caller that does not end a call that was cut short. */
  readonly wrong?: "reads early" | "sleeps late" | "goes on";
}

type State = string;

/** What a call throws that cannot end without its workers. */
const LOST = "workers are lost";

/** A worker, and what the model knows of it besides. */
class ModelWorker extends Thread {
  isBlocked = false;
  isWoken = false;
  isDead = false;
  /** The call that was described when it last looked for pieces. */
  known = 0;
}

/** A model of one setting. It is set to a state, makes a step, and tells the state after it. */
class Model {
  readonly #setting: Setting;
  readonly #words: Int32Array;
  /** The words that are used. */
  readonly #used: readonly number[];
  readonly #caller: Thread;
  readonly #workers: ModelWorker[] = [];
  /**
   * Which call is described, 0 once one has been cut short; which is under way; and how often each piece of each call has been
   * done.
   */
  #described = 0;
  #call = 0;
  #isClosed = false;
  readonly #done: number[][];
  /** What threads find when they ask whether they have waited enough. */
  #patience = false;

  constructor(setting: Setting) {
    this.#setting = setting;
    const threads = setting.workers + 1;
    const memory = memoryOf();
    this.#words = new Int32Array(memory.buffer, 0, 64 + 32 * threads);
    this.#used = [...this.#words.keys()].filter((i) => i < 3 || (i >= 32 && i % 32 < 2));
    this.#done = setting.calls.map((pieces) => new Array<number>(pieces).fill(0));
    const run = (piece: number, described = this.#described): void => {
      const { at, finished } = this.#caller;
      if (at === S.AGAIN && (finished >> piece) & 1)
        throw new Error("a piece was done after its report");
      if (described === 0) return;
      const call = this.#done[described - 1];
      if (call === undefined || piece >= call.length) throw new Error(`no piece ${piece}`);
      call[piece]!++;
    };
    const shared = {
      run,
      isTired: () => this.#patience,
      hasWaitedEnough: () => this.#patience,
      over: (isLost: number) => this.#over(isLost !== 0),
      wake: () => this.#wake(),
    };
    for (let thread = 0; thread < setting.workers; thread++) {
      const early = (piece: number): void => run(piece, this.#workers[thread]!.known);
      const worker = { ...shared, run: setting.wrong === "reads early" ? early : run };
      this.#workers.push(new ModelWorker(memory, thread, threads, worker));
    }
    this.#caller = new Thread(memory, setting.workers, threads, shared);
    this.#caller.at = S.DONE_ALL;
  }

  /** What src/threads/crew.ts does. */
  #over(isLost: boolean): void {
    this.#caller.stop();
    if (this.#setting.deaths !== "slowly") for (const worker of this.#workers) worker.isDead = true;
    if (isLost) throw new Error(LOST);
  }

  #wake(): void {
    for (const worker of this.#workers) {
      if (!worker.isBlocked) continue;
      worker.isBlocked = false;
      worker.isWoken = true;
    }
  }

  /** All that matters of the model, a character for each number; 0 for what will not be read before it is written. */
  get state(): State {
    const { at, queue, claimed, finished } = this.#caller;
    const isIdle = at === S.DONE_ALL;
    const numbers = [at, isIdle ? 0 : queue, this.#keepsPiece(at) ? claimed : 0];
    numbers.push(isIdle ? 0 : finished, this.#described, this.#call, Number(this.#isClosed));
    for (const w of this.#workers) {
      const step = w.at;
      if (w.isDead || step === S.ENDED) {
        numbers.push(S.ENDED, 0, 0, 0, 0, 0, 0, Number(w.isDead), 0);
        continue;
      }
      numbers.push(step, step === S.BEGIN ? 0 : w.epoch, step === S.BEGIN ? 0 : w.queue);
      numbers.push(this.#keepsPiece(step) ? w.claimed : 0, w.finished);
      numbers.push(Number(w.isBlocked), Number(w.isWoken), 0, w.known);
    }
    for (const pieces of this.#done) numbers.push(...pieces);
    for (const i of this.#used) {
      // A queue below 0 is as empty as one at 0.
      const isQueue = i >= 64 && i % 32 === 0;
      if (i === SLEEPERS && !this.#setting.wakes) numbers.push(0);
      else numbers.push(isQueue ? Math.max(0, this.#words[i]!) : this.#words[i]!);
    }
    // The place in a queue that was empty is below 0.
    return String.fromCharCode(...numbers.map((n) => n + 8));
  }

  #keepsPiece(at: number): boolean {
    return at === S.WHICH || at === S.RUN || at === S.AGAIN;
  }

  set state(state: State) {
    let next = 0;
    const number = (): number => state.charCodeAt(next++) - 8;
    const me = this.#caller;
    me.at = number();
    me.queue = number();
    me.claimed = number();
    me.finished = number();
    this.#described = number();
    this.#call = number();
    this.#isClosed = number() === 1;
    me.pieces = this.#setting.calls[this.#call - 1] ?? 0;
    me.looks = 0;
    for (const w of this.#workers) {
      w.at = number();
      w.epoch = number();
      w.queue = number();
      w.claimed = number();
      w.finished = number();
      w.isBlocked = number() === 1;
      w.isWoken = number() === 1;
      w.isDead = number() === 1;
      w.known = number();
      w.looks = 0;
    }
    for (const pieces of this.#done) pieces.splice(0, pieces.length, ...pieces.map(number));
    for (const i of this.#used) this.#words[i] = number();
  }

  /** Whether the caller has no more steps. */
  get isOver(): boolean {
    const { at } = this.#caller;
    const isLate = this.#words[STOP] === 1 && this.#setting.deaths === "slowly";
    return this.#isClosed || at === S.ENDED || (at === S.DONE_ALL && isLate);
  }

  /** Whether the call under way has been cut short. */
  get #isCut(): boolean {
    return this.#described !== this.#call;
  }

  /** Throws if what should hold in this state does not. */
  check(): void {
    const { at } = this.#caller;
    const call = this.#done[this.#call - 1];
    if (at === S.DONE_ALL && !this.#isCut && call?.some((times) => times === 0)) {
      throw new Error("a call ended before all its pieces were done");
    }
    // Between a claim and the report the caller waits, unless it gives up.
    if (
      at === S.DONE_ALL &&
      !this.#words[STOP] &&
      this.#workers.some((w) => !w.isDead && w.finished !== 0)
    ) {
      throw new Error("a call ended before a worker had reported");
    }
    const most = this.#setting.deaths && this.#setting.repeatable ? 2 : 1;
    if (this.#done.flat().some((times) => times > most)) throw new Error("a piece was done twice");
  }

  /**
   * Every step that can be made now: 0 is one of the caller, 1 the same after it has waited long enough, 2 the same after
   * the call has been cut short; then come, for each worker, a step, a step of one that is tired, and its death.
   */
  steps(): number[] {
    const steps: number[] = [];
    const { deaths, cuts } = this.#setting;
    if (!this.isOver) steps.push(0);
    if (!this.isOver && deaths && this.#caller.at === S.WAIT) steps.push(1);
    if (!this.isOver && cuts && !this.#isCut && this.#caller.isCut) steps.push(2);
    for (const { thread, at, isDead, isBlocked } of this.#workers) {
      if (isDead || isBlocked || at === S.ENDED) continue;
      steps.push(3 + 3 * thread);
      if (at === S.IDLE) steps.push(4 + 3 * thread);
      if (deaths) steps.push(5 + 3 * thread);
    }
    return steps;
  }

  make(step: number): void {
    if (step < 3) {
      // What `settle` of assembly/crew.ts does: nobody needs the pieces any more. What happened meanwhile is other steps.
      if (step === 2) {
        this.#described = 0;
        const { wrong, calls } = this.#setting;
        if (wrong === "goes on" && this.#call < calls.length) this.#caller.at = S.DONE_ALL;
      }
      this.#stepOfCaller(step === 1);
      return;
    }
    const worker = this.#workers[Math.floor(step / 3) - 1]!;
    if (step % 3 === 2) worker.isDead = true;
    else this.#stepOfWorker(worker, step % 3 === 1);
  }

  #stepOfCaller(patience: boolean): void {
    this.#patience = patience;
    const me = this.#caller;
    if (me.at !== S.DONE_ALL) {
      try {
        do me.step();
        while (this.#goesOn(me.at));
      } catch (error) {
        if (String(error) !== `Error: ${LOST}`) throw error;
      }
    } else if (this.#call < this.#setting.calls.length) {
      // Describing a call is several writes that are not atomic. One of them stands for all.
      this.#described = ++this.#call;
      const { wakes, repeatable } = this.#setting;
      me.begin(this.#setting.calls[this.#call - 1]!, wakes, repeatable);
      while (this.#goesOn(me.at)) me.step();
    } else {
      me.stop();
      this.#isClosed = true;
    }
  }

  #stepOfWorker(worker: ModelWorker, patience: boolean): void {
    this.#patience = patience;
    const { wrong } = this.#setting;
    if (wrong === "reads early" && worker.at === S.LOOK) worker.known = this.#described;
    if (wrong === "sleeps late" && worker.at === S.SLEEPY) worker.epoch = this.#words[EPOCH]!;
    if (worker.at === S.ASLEEP && !worker.isWoken && this.#words[EPOCH] === worker.epoch) {
      worker.isBlocked = true;
      return;
    }
    worker.isWoken = false;
    do worker.step();
    while (this.#goesOn(worker.at));
  }

  /**
   * Whether the step that comes next belongs to the one before. Nothing shared is touched by NONE. The others touch
   * what nobody else does at that time: between a claim and the report nobody describes another call or counts its
   * pieces (`check` holds that), STOP is written before the EPOCH that a worker has just read, and who sleeps matters
   * only to callers that wake. A worker may die between its claim and its piece, but not between two other steps of these.
   */
  #goesOn(at: number): boolean {
    const { isCoarse, deaths, wakes } = this.#setting;
    if (at === S.NONE || !isCoarse) return at === S.NONE;
    if (at === S.RUN) return !deaths;
    if (at === S.SLEEPY || at === S.AWAKE) return !wakes;
    return at === S.WHICH || at === S.STOPPED || at === S.COUNT;
  }

  /** Whether every worker that lives has ended. */
  get areAllEnded(): boolean {
    return this.#workers.every(({ at, isDead }) => at === S.ENDED || isDead);
  }
}

/** Whether a step is only that of a caller that waits, and looks at another worker without finding anything. */
function isWaiting(from: State, to: State): boolean {
  const waits = S.WAIT + 8;
  return from.charCodeAt(0) === waits && to[0] === from[0] && to.slice(2) === from.slice(2);
}

/** Whether a caller that waits finds nothing, whichever worker it looks at: by its own steps the call never ends. */
function findsNothing(model: Model, state: State): boolean {
  let at = state;
  do {
    model.state = at;
    if (model.isOver) return true;
    model.make(0);
    if (model.state === at) return true;
    if (!isWaiting(at, model.state)) return false;
    at = model.state;
  } while (at !== state);
  return true;
}

/** Visits every state, and returns how many there are. */
function explore(setting: Setting): number {
  const model = new Model(setting);
  const start = model.state;
  const seen = new Set<State>([start]);
  const open = [start];
  for (let state = open.pop(); state !== undefined; state = open.pop()) {
    model.state = state;
    let isStuck = true;
    for (const step of model.steps()) {
      model.state = state;
      model.make(step);
      model.check();
      const next = model.state;
      if (next === state) continue;
      isStuck &&= isWaiting(state, next);
      if (seen.has(next)) continue;
      seen.add(next);
      open.push(next);
    }
    if (isStuck && !findsNothing(model, state)) isStuck = false;
    model.state = state;
    if (isStuck && !(model.isOver && model.areAllEnded)) throw new Error(`stuck in ${state}`);
  }
  return seen.size;
}

describe("every order of steps: each piece is done once, no call ends early, nobody waits for ever", () => {
  const each = { deaths: false, repeatable: true, wakes: true, isCoarse: false };
  const settings: Setting[] = [
    { ...each, workers: 1, calls: [4, 2] },
    { ...each, workers: 1, calls: [2, 3], wakes: false },
    { ...each, workers: 1, calls: [3, 2], deaths: true },
    { ...each, workers: 1, calls: [3, 2], deaths: true, repeatable: false },
    { ...each, workers: 1, calls: [3, 2], deaths: "slowly" },
    { ...each, workers: 1, calls: [3, 2], cuts: true },
    { ...each, workers: 1, calls: [2, 2], cuts: true, deaths: true },
    { ...each, workers: 2, calls: [2, 2], isCoarse: true },
    { ...each, workers: 2, calls: [1, 3], wakes: false, isCoarse: true },
    { ...each, workers: 2, calls: [4], isCoarse: true },
  ];
  // Those that take a minute together are gone through by .ci/run, with PROTOCOL=all.
  if (process.env.PROTOCOL === "all") {
    settings.push(
      { ...each, workers: 2, calls: [3, 2], isCoarse: true },
      { ...each, workers: 2, calls: [2, 4], isCoarse: true },
      { ...each, workers: 2, calls: [2, 2] },
      { ...each, workers: 2, calls: [2, 2], deaths: true, isCoarse: true },
      { ...each, workers: 2, calls: [2, 2], deaths: "slowly", isCoarse: true },
      { ...each, workers: 2, calls: [2, 2], cuts: true, isCoarse: true },
      { ...each, workers: 2, calls: [2, 2], cuts: true, deaths: true, isCoarse: true },
      { ...each, workers: 2, calls: [2, 2], deaths: true, repeatable: false, isCoarse: true },
    );
  }
  test.each(settings)(
    "$workers workers, calls of $calls pieces, deaths: $deaths, cuts: $cuts, repeatable: $repeatable, wakes: $wakes",
    (setting) => {
      expect(explore(setting)).toBeGreaterThan(1000);
    },
    1_800_000,
  );
});

describe("what would be wrong is found", () => {
  const setting: Setting = {
    deaths: false,
    repeatable: true,
    wakes: true,
    isCoarse: false,
    workers: 1,
    calls: [2, 2],
  };

  test("a call that is read about before its piece is claimed", () => {
    expect(() => explore({ ...setting, wrong: "reads early" })).toThrow("done twice");
  });

  test("a worker that sleeps on an epoch that it has read after it looked for pieces", () => {
    expect(() => explore({ ...setting, wrong: "sleeps late" })).toThrow("stuck");
  });

  test("a call that begins while workers do pieces of one that was cut short", () => {
    expect(() => explore({ ...setting, cuts: true, wrong: "goes on" })).toThrow(
      "before a worker had",
    );
  });
});

describe("a caller that waits for workers", () => {
  const asked: { looks: number; word: number; value: number }[] = [];
  const overs: number[] = [];
  const done: number[] = [];
  let words: Int32Array;
  let me: Thread;

  /** A caller that waits for four pieces of two workers, has done none itself, and is asked `waits` times to go on. */
  const waiting = (repeatable: boolean, waits: number): void => {
    const memory = memoryOf();
    words = new Int32Array(memory.buffer);
    for (const list of [asked, done, overs]) list.length = 0;
    me = new Thread(memory, 2, 3, {
      run: (piece) => done.push(piece),
      isTired: () => false,
      hasWaitedEnough: (looks, word, value) => asked.push({ looks, word, value }) > waits,
      over: (isLost) => {
        overs.push(isLost);
        me.stop();
        if (isLost) throw new Error(LOST);
      },
      wake: () => {},
    });
    me.begin(4, false, repeatable);
    me.at = S.WAIT;
  };

  /** Where worker t reports what it has done. */
  const reportOf = (t: number): number => 64 + 32 * t + 1;

  test("counts its looks anew after a report", () => {
    waiting(true, 100);
    for (let i = 0; i < 5; i++) me.step();
    expect(asked.map(({ looks }) => looks)).toEqual([0, 1, 2, 3, 4]);
    words[reportOf(1)] = 0b0100;
    for (let i = 0; i < 4; i++) me.step();
    expect(asked.slice(5).map(({ looks }) => looks)).toEqual([0, 1, 2]);
    expect(me.finished).toBe(0b0100);
    // It looks at the word of one worker after the other, and tells what it saw there.
    expect(asked.slice(5).map(({ word }) => word)).toEqual([0, 1, 0].map((t) => 4 * reportOf(t)));
    expect(asked[6]!.value).toBe(0b0100);
  });

  test("does again what nobody has reported, and nothing else", () => {
    waiting(true, 1);
    words[reportOf(0)] = 0b0010;
    words[reportOf(1)] = 0b1000;
    while (me.step()) {}
    expect(me.at).toBe(S.DONE_ALL);
    expect(overs).toEqual([0]);
    expect(done).toEqual([2, 0]);
  });

  test("does nothing again that is not repeatable, and has nothing more to do after it has thrown", () => {
    waiting(false, 1);
    words[reportOf(0)] = 0b0010;
    expect(() => {
      while (me.step()) {}
    }).toThrow(LOST);
    expect(me.isCut).toBe(false);
    expect(overs).toEqual([1]);
    expect(done).toEqual([]);
  });

  test("has nothing more to do once workers have been ended", () => {
    waiting(true, 100);
    expect(me.isCut).toBe(true);
    me.stop();
    expect(me.isCut).toBe(false);
    expect(me.step()).toBe(false);
    expect(done).toEqual([]);
  });

  test("is done as soon as all pieces are reported", () => {
    waiting(false, 100);
    words[reportOf(0)] = 0b0011;
    words[reportOf(1)] = 0b1100;
    while (me.step()) {}
    expect(me.at).toBe(S.DONE_ALL);
    expect(asked).toEqual([]);
  });
});
