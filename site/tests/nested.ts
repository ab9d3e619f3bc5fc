// What a page does when a worker is blocked while it makes another one, with workers that are no browser's.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { open, tellOpenings } from "../src/nested.js";

/** Those that were made, in their order. */
let made: FakeWorker[] = [];
let heard: unknown[] = [];

class FakeWorker extends EventTarget {
  ended = false;
  wish: unknown;

  constructor() {
    super();
    made.push(this);
  }
  postMessage(wish: unknown): void {
    this.wish = wish;
  }
  terminate(): void {
    this.ended = true;
  }
  says(...answers: readonly object[]): void {
    for (const data of answers) this.dispatchEvent(new MessageEvent("message", { data }));
  }
}

const begin = (): (() => void) =>
  open<string, object>(() => new FakeWorker() as unknown as Worker, "the wish", {
    begin: () => heard.push("begin"),
    hear: (answer) => heard.push(answer),
    fail: (message) => heard.push(message),
  });

mock.timers.enable({ apis: ["setTimeout"] });
beforeEach(() => {
  made = [];
  heard = [];
});

test("a worker that is blocked while it makes another is ended and begun again", () => {
  begin();
  made[0]!.says({ text: "first" }, { opening: true });
  mock.timers.tick(2999);
  assert.equal(made.length, 1);
  mock.timers.tick(1);
  assert.deepEqual([made.length, made[0]!.ended, made[1]!.ended], [2, true, false]);
  assert.equal(made[1]!.wish, "the wish");
  made[1]!.says({ opening: true }, { opening: false }, { text: "first" });
  assert.deepEqual(heard, ["begin", { text: "first" }, "begin", { text: "first" }]);
});

test("one that has made its workers may take its time", () => {
  begin();
  made[0]!.says({ opening: true }, { opening: false });
  mock.timers.tick(60_000);
  assert.deepEqual([made.length, made[0]!.ended], [1, false]);
});

test("one that was ended is not begun again", () => {
  const end = begin();
  made[0]!.says({ opening: true });
  end();
  mock.timers.tick(60_000);
  assert.deepEqual([made.length, made[0]!.ended], [1, true]);
});

test("a worker tells the page when it makes another, and when it has, even if that throws", () => {
  const told: unknown[] = [];
  const native = class {
    constructor(url: string) {
      told.push(url);
      if (url === "bad") throw new SyntaxError("no address");
    }
  };
  Object.assign(globalThis, {
    Worker: native,
    postMessage: (message: unknown) => told.push(message),
  });
  tellOpenings();
  assert.ok(new Worker("good") instanceof native);
  assert.throws(() => new Worker("bad"), SyntaxError);
  const [before, after] = [{ opening: true }, { opening: false }];
  assert.deepEqual(told, [before, "good", after, before, "bad", after]);
});
