// How the caller and the workers share the pieces of a call: countdowns in shared memory.
//
// Every thread has an instance of this binary, and its state is in the variables below. A step makes at most one access to
// shared memory that others see, so tests/threads/protocol.test.ts can go through every order in which the steps of several
// threads may follow each other. The loops that run in earnest take the same steps, one after the other.
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
// If a worker does not finish a piece within a bound, because it is late, or because something ended it, the caller gives all
// workers up, and has them terminated. It does that piece again, where this is safe; elsewhere src/threads/crew.ts throws.

import { piece } from "./pieces";
import { scratch, shared, thread, threads, words } from "./told";
import { hasWaitedEnough, isTired, over, sleep, wake } from "./waiting";

/** Where each word lies, in bytes. Those that the caller alone writes share a cache line. */
export const EPOCH: usize = 0;
const PIECES: usize = 4;
export const STOP: usize = 8;
export const SLEEPERS: usize = 128;
/** The words of each thread: its QUEUE, and what it has DONE. They lie 128 bytes from those of the next one. */
const QUEUE: usize = 256;
const DONE: usize = 260;
const APART: u32 = 7;

/** Pieces that a call has at most: one bit of a word for each. */
export const MAX_PIECES: u32 = 32;

/** Steps of workers. */
const BEGIN: u32 = 0;
const STOPPED: u32 = 1;
const IDLE: u32 = 2;
const REPORT: u32 = 3;
const SLEEPY: u32 = 4;
const ASLEEP: u32 = 5;
const AWAKE: u32 = 6;
/** Steps of all threads, by which pieces are claimed. After NONE, none of the queues has a piece. */
const LOOK: u32 = 7;
const CLAIM: u32 = 8;
const WHICH: u32 = 9;
const RUN: u32 = 10;
const NONE: u32 = 11;
/** Steps of callers. */
export const COUNT: u32 = 12;
const CLEAR: u32 = 13;
const OFFER: u32 = 14;
const RAISE: u32 = 15;
const SLEEPING: u32 = 16;
const WAKE: u32 = 17;
const WAIT: u32 = 18;
const GIVE_UP: u32 = 19;
const AGAIN: u32 = 20;
/** From here on there is no next step. */
const ENDED: u32 = 21;
const DONE_ALL: u32 = 22;

/** The step that comes next. */
let at: u32 = BEGIN;
/** The thread whose queue it looks at; a worker begins with its own. */
let queue: u32 = 0;
/** The piece that it has claimed; before it knows how many pieces there are, the place in its queue. */
let claimed: i32 = 0;
/** The pieces that it has done and not reported, a bit for each; of a caller, those that are known to be done. */
let finished: u32 = 0;
/** How often it has waited. */
let looks: u32 = 0;
/** A worker: EPOCH as it was before it last looked for pieces. */
let epoch: i32 = 0;
/** A caller: how many pieces the call has, and whether workers that sleep are to be woken for it. */
let pieces: u32 = 0;
let wakes: bool = false;
/** Whether a piece that a worker has begun may be done again. If not, a call that gives up throws. */
let repeatable: bool = false;

/** Makes COUNT the next step: that of a call whose description is complete. */
export function begin(n: u32, wakesAll: bool, isRepeatable: bool): void {
  at = COUNT;
  pieces = n;
  wakes = wakesAll;
  repeatable = isRepeatable;
}

/** Whether the call before was cut short: something that was thrown, or a time limit of the runtime, ended it in the middle. */
export function isCut(): bool {
  return at > BEGIN && at < ENDED;
}

/** Says that nobody needs what the call under way writes, so that it never throws. */
export function forgo(): void {
  repeatable = true;
}

/** A word of all threads. */
// @ts-ignore: decorator
@inline export function load(word: usize): i32 {
  return atomic.load<i32>(words + word);
}

/** The address of thread t's QUEUE is QUEUE behind this, that of its DONE is DONE behind it. */
function own(t: u32): usize {
  return words + (t << APART);
}

/** The first piece of the share that thread t has of n pieces. That of the last thread is never empty. */
function firstOf(n: u32, t: u32): u32 {
  return n * t / threads;
}

/** Goes on to the queue of the next of n threads. */
function turn(n: u32): void {
  queue = (queue + 1) % n;
}

/** Goes on to the next queue, until it has looked at all. */
function nextQueue(): u32 {
  turn(threads);
  return queue == thread ? NONE : LOOK;
}

/** Makes a step. Returns whether there are more. */
export function step(): bool {
  at = next();
  return at < ENDED;
}

/** Makes a step. Returns the one that comes next. */
function next(): u32 {
  switch (at) {
    case LOOK: return atomic.load<i32>(own(queue), QUEUE) > 0 ? CLAIM : nextQueue();
    case CLAIM: {
      claimed = atomic.sub<i32>(own(queue), 1, QUEUE) - 1;
      return claimed >= 0 ? WHICH : nextQueue();
    }
    case WHICH: {
      claimed += firstOf(load(PIECES), queue);
      return RUN;
    }
    case RUN: {
      piece(shared, claimed, scratch);
      finished |= 1 << claimed;
      return LOOK;
    }
    case NONE: {
      if (thread < threads - 1) return finished ? REPORT : IDLE;
      queue = 0;
      return WAIT;
    }

    case BEGIN: {
      epoch = load(EPOCH);
      looks = 0;
      queue = thread;
      return STOPPED;
    }
    case STOPPED: return load(STOP) ? ENDED : LOOK;
    case IDLE: {
      if (load(EPOCH) != epoch) return BEGIN;
      return isTired(looks++) ? SLEEPY : IDLE;
    }
    case REPORT: {
      // No other thread adds to it meanwhile, and the caller clears it only when nobody has anything to report.
      atomic.or<i32>(own(thread), finished, DONE);
      finished = 0;
      return IDLE;
    }
    case SLEEPY: {
      atomic.add<i32>(words, 1, SLEEPERS);
      return ASLEEP;
    }
    case ASLEEP: {
      sleep(words + EPOCH, epoch);
      return AWAKE;
    }
    case AWAKE: {
      atomic.sub<i32>(words, 1, SLEEPERS);
      return BEGIN;
    }

    case COUNT: {
      // Not atomic, like all that describes the call: whoever reads it has claimed a piece before.
      store<u32>(words, pieces, PIECES);
      looks = finished = queue = 0;
      return CLEAR;
    }
    case CLEAR: {
      // All are cleared before the first piece is offered: a worker that comes late from the call before may take a piece
      // of any share and report it at once.
      store<u32>(own(queue), 0, DONE);
      turn(threads);
      return queue ? CLEAR : OFFER;
    }
    case OFFER: {
      // Gives the next thread its share.
      atomic.store<i32>(own(queue), firstOf(pieces, queue + 1) - firstOf(pieces, queue), QUEUE);
      turn(threads);
      return queue ? OFFER : RAISE;
    }
    case RAISE: {
      atomic.add<i32>(words, 1, EPOCH);
      queue = thread;
      return wakes ? SLEEPING : LOOK;
    }
    case SLEEPING: return load(SLEEPERS) ? WAKE : LOOK;
    case WAKE: {
      wake(words + EPOCH);
      return LOOK;
    }
    case WAIT: {
      // Looks at what the next worker has done, if that is needed.
      if (finished == u32.MAX_VALUE >> (MAX_PIECES - pieces)) return DONE_ALL;
      const place = own(queue);
      const done = atomic.load<u32>(place, DONE);
      turn(thread);
      if (done & ~finished) looks = 0;
      else if (hasWaitedEnough(looks++, place + DONE, done)) return GIVE_UP;
      finished |= done;
      return WAIT;
    }
    case GIVE_UP: {
      // This calls `stop`. If it throws, there is no next step.
      over(!repeatable);
      claimed = pieces;
      return AGAIN;
    }
    case AGAIN: {
      // A worker may have done more than it has reported. One that goes on until it is terminated writes the same values.
      if (claimed == 0) return DONE_ALL;
      if (!((finished >> --claimed) & 1)) piece(shared, claimed, scratch);
      return AGAIN;
    }
  }
  return at;
}

/** Ends all workers, and the call that is under way, if there is one. */
export function stop(): void {
  at = ENDED;
  atomic.store<i32>(words, 1, STOP);
  atomic.add<i32>(words, 1, EPOCH);
  wake(words + EPOCH);
}
