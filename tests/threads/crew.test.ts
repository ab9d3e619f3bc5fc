// How the caller decides whether workers take part (assembly/crew.ts), by the binary itself and what threads tell it in words
// of the shared memory. No worker runs here.

import { beforeEach, expect, test } from "vitest";
import type { ThreadExports } from "../../src/engine/machine.js";
import type { At } from "../../src/engine/memory.js";
import { onSharedMemory } from "../../src/threads/binary.js";
import { PATIENCE } from "../../src/threads/patience.js";
import { COLUMNS, roomOf, SETTINGS } from "../../src/threads/room.js";
import { ALONE, CACHED, MOST, PIECE, RUN, WAKE } from "../../src/threads/sizes.js";
import { compile, decode } from "../../src/wasm/compile.js";
import { TEXT as FROZEN } from "../../src/wasm/frozen-text.js";
import { TEXT as KERNELS } from "../../src/wasm/kernels-text.js";
import { TEXT as PIECES } from "../../src/wasm/threads-text.js";
import { QUEUE, SLEEPERS } from "../support/protocol.js";

const AT = 64;
const KERNELS_MODULES = [FROZEN, KERNELS].map((text) => compile(onSharedMemory(decode(text))));
const PIECES_MODULE = compile(decode(PIECES));

let words: Int32Array;
let caller: ThreadExports;

/** The calling thread of so many. `env` is what it imports besides the memory, `kernels` what it calls in place of kernels. */
function begin(
  threads: number,
  env: WebAssembly.ModuleImports = { now: () => 0, over: () => {} },
  kernels: WebAssembly.ModuleImports = {},
): void {
  const pages = Math.ceil((AT + roomOf(threads)) / 65536);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: 65536, shared: true });
  const all = { memory, ...env };
  const own = KERNELS_MODULES.map((each) => new WebAssembly.Instance(each, { env: all }).exports);
  const imports = { env: all, kernels: Object.assign({}, ...own, kernels) };
  const { exports } = new WebAssembly.Instance(PIECES_MODULE, imports);
  caller = exports as unknown as ThreadExports;
  words = new Int32Array(memory.buffer, AT, 128);
  words.set([COLUMNS, CACHED, RUN, ALONE, PIECE, MOST, WAKE, PATIENCE, 1], SETTINGS / 4);
  caller.tell(threads - 1, threads, AT as At<"room">);
}

/** A call that is cut into four pieces. */
function inFourPieces(): void {
  const at = { y: 1 << 20, x: 2 << 20, terms: 3 << 20 };
  const rows = (4 * PIECE) / 64;
  caller.affineStrips(
    ...([at.y as never, at.x as never, 0 as never, at.terms as never] as const),
    ...([NaN, NaN, rows, 64, 256] as const),
  );
}

beforeEach(() => begin(3));

test("work is shared out while a worker is awake", () => {
  expect(caller.pieces(4 * PIECE, 32)).toBe(4);
  words[SLEEPERS] = 1;
  expect(caller.pieces(4 * PIECE, 32)).toBe(4);
});

test("while all sleep, this thread does it alone, until there was enough of it to wake them", () => {
  words[SLEEPERS] = 2;
  const work = WAKE / 4;
  const pieces = [1, 2, 3, 4, 5].map(() => caller.pieces(work, 4));
  expect(pieces).toEqual([1, 1, 1, 4, 1]);
});

test.each([
  ["less work than ALONE", 3, ALONE - 1, 32],
  ["a single possible piece", 3, 4 * PIECE, 1],
  ["no other thread", 1, 4 * PIECE, 32],
])("%s: this thread does it alone", (_, threads, work, possible) => {
  begin(threads);
  expect(caller.pieces(work, possible)).toBe(1);
});

test("so it does once workers have been ended", () => {
  caller.stop();
  expect(caller.pieces(4 * PIECE, 32)).toBe(1);
});

// Ctrl-Z, a debugger, or a computer that falls asleep stop this thread, and the workers as well.
test.each([
  ["all of it while this thread looks", 10, PATIENCE / 10],
  ["50 ms at most between two looks", 1000, PATIENCE / 50],
])("workers are given up after ten seconds, of which count %s", (_, apart, looks) => {
  let asked = 0;
  let overs = 0;
  let pieces = 0;
  const env = {
    now: () => apart * ++asked,
    over(isLost: number) {
      expect(isLost).toBe(0);
      overs++;
      caller.stop();
    },
  };
  const affineStrips = (): void => {
    // A worker claims a piece of its share, and never says that it has done it.
    if (pieces++ === 0) Atomics.sub(words, QUEUE, 1);
  };
  begin(2, env, { affineStrips });
  inFourPieces();
  expect(overs).toBe(1);
  expect(pieces).toBe(4);
  // The first time that it asks is when it begins to wait.
  expect(asked).toBe(looks + 2);
});

test("of a call that was cut short, the next one leaves out what nobody has begun", () => {
  let pieces = 0;
  const affineStrips = (): void => {
    if (pieces++ === 0) throw new Error("cut short");
  };
  begin(2, undefined, { affineStrips });
  expect(inFourPieces).toThrow("cut short");
  caller.settle();
  expect(pieces).toBe(1);
  inFourPieces();
  expect(pieces).toBe(5);
});
