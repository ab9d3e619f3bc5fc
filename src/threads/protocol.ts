// How the caller and the workers share the pieces of a call: countdowns in shared memory.
//
// Caller and workers are state machines. A step makes at most one access to shared memory that others see, so
// tests/threads/protocol.test.ts can go through every order in which the steps of several threads may follow each
// other. The loops that run in earnest take the same steps, one after the other.
//
//   caller   describes the call; PIECES = n; DONE = 0 for each thread; QUEUE = its share of the pieces, for each thread;
//            EPOCH += 1; wakes those who sleep. Then it claims pieces as workers do, until there are none, and waits for
//            those that workers have claimed and not finished.
//   worker   reads EPOCH; claims pieces of its own share, then of the others' shares; reports what it has done; looks
//            at EPOCH for a while; sleeps until it changes.
//
// Each thread begins with its own share, the same in each call, because it then finds in its cache what it had in the
// call before. Nobody waits for a thread that does not come: the others take its share.
//
// A piece is claimed by counting a QUEUE down: whoever brings it from p + 1 to p has piece p of that share. What a call is
// about is read after a claim and never before. A worker that comes too late for its call finds all queues at 0, or
// claims a piece of a later call, whose description is then complete. A worker sleeps on the EPOCH that it read before it
// last looked for pieces, so that no wake-up gets lost.
//
// If a worker does not finish a piece within a bound, the caller gives all workers up. It does that piece again, where
// this is safe; elsewhere the call ends without it, and src/threads/crew.ts throws.

/** Where each word lies. Those that the caller alone writes share a cache line. */
export const EPOCH = 0;
const PIECES = 1;
const STOP = 2;
export const SLEEPERS = 32;
/** Not 0 if a piece threw in a worker. */
export const FAILED = 33;
/** The words of each thread: its QUEUE, and what it has DONE. They lie 128 bytes from those of the next one. */
const OWN = 64;
const APART = 32;
const QUEUE = 0;
const DONE = 1;
/** How many words there are for so many threads. */
export const wordsOf = (threads: number): number => OWN + APART * threads;
/** Where a word of thread t lies. */
const own = (t: number, word: number): number => OWN + APART * t + word;

/** Pieces that a call has at most: one bit of a word for each. */
export const MAX_PIECES = 32;

/** The first piece of the share that thread t of so many has of n pieces. That of the last thread is never empty. */
const firstOf = (n: number, t: number, threads: number): number => Math.floor((n * t) / threads);

/** What the steps of both need: workers are the threads from 0 on, the caller is the last one. */
interface Thread {
  readonly words: Int32Array;
  readonly thread: number;
  readonly threads: number;
  /** The queue that it looks at. */
  queue: number;
  /** The piece that it has claimed; before it knows how many pieces there are, the place in its queue. */
  piece: number;
  /** The pieces that it has done and not reported, a bit for each. */
  finished: number;
  /** How often it has waited. */
  looks: number;
  /** Does a piece. Reads what the call is about first. */
  run(piece: number): void;
}

/** A worker; a step is what comes next. */
export interface Worker extends Thread {
  at: Claiming | "begin" | "stop?" | "report" | "idle" | "sleepy" | "sleep" | "awake" | "ended";
  /** EPOCH as it was before the worker last looked for pieces. */
  epoch: number;
  /** Whether it has looked at EPOCH often enough to go to sleep. */
  isTired(looks: number): boolean;
  /** Sleeps until somebody notifies EPOCH. Returns at once if it is no longer `epoch`. */
  sleep(epoch: number): void;
}

/** The steps by which pieces are claimed. */
type Claiming = "look" | "claim" | "which" | "run" | "none";

/** One step of claiming. At the end, it is "none": none of the queues has a piece. */
function claimStep(me: Thread & { at: string }): void {
  const { words } = me;
  const queue = own(me.queue, QUEUE);
  switch (me.at as Claiming) {
    case "look":
      if (Atomics.load(words, queue) > 0) me.at = "claim";
      else nextQueue(me);
      break;
    case "claim":
      me.piece = Atomics.sub(words, queue, 1) - 1;
      if (me.piece >= 0) me.at = "which";
      else nextQueue(me);
      break;
    case "which":
      me.piece += firstOf(Atomics.load(words, PIECES), me.queue, me.threads);
      me.at = "run";
      break;
    case "run":
      me.run(me.piece);
      me.finished |= 1 << me.piece;
      me.at = "look";
      break;
    case "none":
  }
}

function nextQueue(me: Thread & { at: string }): void {
  me.queue = (me.queue + 1) % me.threads;
  me.at = me.queue === me.thread ? "none" : "look";
}

/** One step of a worker. Returns whether there are more. */
export function workerStep(me: Worker): boolean {
  const { words } = me;
  switch (me.at) {
    case "idle":
      if (Atomics.load(words, EPOCH) !== me.epoch) me.at = "begin";
      else if (me.isTired(me.looks++)) me.at = "sleepy";
      break;
    case "begin":
      me.epoch = Atomics.load(words, EPOCH);
      me.looks = 0;
      me.at = "stop?";
      break;
    case "stop?":
      me.at = Atomics.load(words, STOP) === 0 ? "look" : "ended";
      break;
    case "none":
      me.at = me.finished === 0 ? "idle" : "report";
      break;
    case "report":
      // No other thread adds to it meanwhile, and the caller clears it only when nobody has anything to report.
      Atomics.or(words, own(me.thread, DONE), me.finished);
      me.finished = 0;
      me.at = "idle";
      break;
    case "sleepy":
      Atomics.add(words, SLEEPERS, 1);
      me.at = "sleep";
      break;
    case "sleep":
      me.sleep(me.epoch);
      me.at = "awake";
      break;
    case "awake":
      Atomics.sub(words, SLEEPERS, 1);
      me.at = "begin";
      break;
    case "ended":
      return false;
    default:
      claimStep(me);
  }
  return true;
}

/** A caller; a step is what comes next. */
export interface Caller extends Thread {
  at:
    | Claiming
    | "count"
    | "clear"
    | "offer"
    | "raise"
    | "sleepers?"
    | "wake"
    | "wait"
    | "give up"
    | "again"
    | "end"
    | "done"
    | "given up";
  /** How many pieces the call has. */
  pieces: number;
  /** Whether workers that sleep are to be woken for it. */
  wakes: boolean;
  /** Whether a piece that a worker has begun may be done again. If not, a call that gives up has not done all of them. */
  repeatable: boolean;
  /** Wakes the workers that sleep on EPOCH. */
  wake(): void;
  /** Passes the time until it looks again at a word, which was `value`. Returns whether workers are given up. */
  hasWaitedEnough(looks: number, word: number, value: number): boolean;
}

/** One step of a caller whose call is described already. Returns whether there are more. */
export function callerStep(me: Caller): boolean {
  const { words } = me;
  switch (me.at) {
    case "count":
      // Not atomic, like all that describes the call: whoever reads it has claimed a piece before.
      words[PIECES] = me.pieces;
      me.looks = 0;
      me.finished = 0;
      me.queue = 0;
      me.at = "clear";
      break;
    case "clear":
      // All are cleared before the first piece is offered: a worker that comes late from the call before may take a piece
      // of any share and report it at once.
      words[own(me.queue, DONE)] = 0;
      me.queue = (me.queue + 1) % me.threads;
      me.at = me.queue === 0 ? "offer" : "clear";
      break;
    case "offer":
      offerStep(me);
      break;
    case "raise":
      Atomics.add(words, EPOCH, 1);
      me.queue = me.thread;
      me.at = me.wakes ? "sleepers?" : "look";
      break;
    case "sleepers?":
      me.at = Atomics.load(words, SLEEPERS) > 0 ? "wake" : "look";
      break;
    case "wake":
      me.wake();
      me.at = "look";
      break;
    case "none":
      me.queue = 0;
      me.at = "wait";
      break;
    case "wait":
      waitStep(me);
      break;
    case "give up":
      Atomics.store(words, STOP, 1);
      me.piece = me.repeatable ? me.pieces : 0;
      me.at = "again";
      break;
    case "again":
      // A worker may have done more than it has reported. What it does late has the same values.
      if (me.piece === 0) me.at = "end";
      else if (((me.finished >> --me.piece) & 1) === 0) me.run(me.piece);
      break;
    case "end":
      Atomics.add(words, EPOCH, 1);
      me.wake();
      me.at = "given up";
      break;
    case "done":
    case "given up":
      return false;
    default:
      claimStep(me);
  }
  return true;
}

/** Gives the next thread its share. */
function offerStep(me: Caller): void {
  const { pieces, queue, threads } = me;
  const share = firstOf(pieces, queue + 1, threads) - firstOf(pieces, queue, threads);
  Atomics.store(me.words, own(queue, QUEUE), share);
  me.queue++;
  me.at = me.queue === threads ? "raise" : "offer";
}

/** Looks at what the next worker has done, if that is needed. */
function waitStep(me: Caller): void {
  const all = (-1 >>> (MAX_PIECES - me.pieces)) | 0;
  if (me.finished === all) {
    me.at = "done";
    return;
  }
  const word = own(me.queue, DONE);
  const done = Atomics.load(me.words, word);
  const before = me.finished;
  me.finished |= done;
  me.queue = (me.queue + 1) % me.thread;
  if (me.finished !== before) me.looks = 0;
  else if (me.hasWaitedEnough(me.looks++, word, done)) me.at = "give up";
}

/** Ends all workers. No call may be under way. */
export function stopWorkers(words: Int32Array): void {
  Atomics.store(words, STOP, 1);
  Atomics.add(words, EPOCH, 1);
  Atomics.notify(words, EPOCH);
}
