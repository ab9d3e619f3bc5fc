// The steps of assembly/protocol.ts, one at a time, each thread by an instance of its own. The file is compiled as it is; only
// what its steps call is here: doing a piece, sleeping and waiting.

import { readFileSync } from "node:fs";
import asc from "assemblyscript/asc";

const sourceOf = (name: string): string =>
  readFileSync(new URL(`../../assembly/${name}`, import.meta.url), "utf8");

const source = sourceOf("protocol.ts");

/** The variables and constants that it does not export. */
const hidden = [...source.matchAll(/^(?:const|let) (\w+): /gm)].map(([, name]) => name);

const external = (name: string, parameters: string): string =>
  `@external("test", "${name}")\nexport declare function ${name}(${parameters};\n`;

const FILES: Record<string, string> = {
  "protocol.ts": `${source}\nexport { tell } from "./told";\nexport { ${hidden.join(", ")} };\n`,
  "told.ts": sourceOf("told.ts"),
  "pieces.ts":
    external("piece", "job: usize, p: u32, scratch: usize): void") +
    "@unmanaged export class NearJob { any: u32; }\n",
  "waiting.ts":
    external("isTired", "looks: u32): bool") +
    external("hasWaitedEnough", "looks: u32, word: usize, value: i32): bool") +
    external("over", "isLost: bool): void") +
    external("sleep", "word: usize, value: i32): void") +
    external("wake", "word: usize): void"),
};

async function compiled(): Promise<WebAssembly.Module> {
  let binary = new Uint8Array();
  const options = "--outFile x.wasm --runtime stub --importMemory --noExportMemory --memoryBase 0";
  const { error, stderr } = await asc.main(
    [
      "protocol.ts",
      ..."--enable threads --sharedMemory --maximumMemory 1 -O2".split(" "),
      ...options.split(" "),
    ],
    {
      readFile: (path) => FILES[path] ?? null,
      writeFile: (_path, contents) => {
        binary = Uint8Array.from(contents as Uint8Array);
      },
      listFiles: () => [],
    },
  );
  if (error) throw new Error(stderr.toString());
  return new WebAssembly.Module(binary);
}

const module = await compiled();

/** What the steps of a thread call. */
export interface Calls {
  run(piece: number): void;
  isTired(looks: number): boolean;
  hasWaitedEnough(looks: number, word: number, value: number): boolean;
  over(isLost: number): void;
  wake(): void;
}

type Variable = WebAssembly.Global<"i32">;
type Exports = Record<
  "at" | "queue" | "claimed" | "finished" | "looks" | "pieces" | "epoch",
  Variable
> & {
  tell(index: number, count: number, at: number): void;
  begin(n: number, wakes: boolean, repeatable: boolean): void;
  step(): number;
  isCut(): number;
  stop(): void;
};

export const memoryOf = (): WebAssembly.Memory =>
  new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });

const instanceOn = (memory: WebAssembly.Memory, calls: Calls): WebAssembly.Exports => {
  const piece = (_job: number, p: number): void => calls.run(p);
  const test = { ...calls, piece, sleep: () => {} };
  return new WebAssembly.Instance(module, { env: { memory }, test } as never).exports;
};

/** A thread whose words begin at address 0. */
export class Thread {
  readonly thread: number;
  readonly #all: Exports;

  constructor(memory: WebAssembly.Memory, thread: number, threads: number, calls: Calls) {
    this.thread = thread;
    this.#all = instanceOn(memory, calls) as unknown as Exports;
    this.#all.tell(thread, threads, 0);
  }

  begin(n: number, wakes: boolean, repeatable: boolean): void {
    this.#all.begin(n, wakes, repeatable);
  }

  /** Whether there are more steps. */
  step(): boolean {
    return this.#all.step() !== 0;
  }

  /** Whether the call that it began has not ended. */
  get isCut(): boolean {
    return this.#all.isCut() !== 0;
  }

  stop(): void {
    this.#all.stop();
  }

  get at(): number {
    return this.#all.at.value;
  }

  set at(value: number) {
    this.#all.at.value = value;
  }

  get queue(): number {
    return this.#all.queue.value;
  }

  set queue(value: number) {
    this.#all.queue.value = value;
  }

  get claimed(): number {
    return this.#all.claimed.value;
  }

  set claimed(value: number) {
    this.#all.claimed.value = value;
  }

  get finished(): number {
    return this.#all.finished.value;
  }

  set finished(value: number) {
    this.#all.finished.value = value;
  }

  get looks(): number {
    return this.#all.looks.value;
  }

  set looks(value: number) {
    this.#all.looks.value = value;
  }

  get pieces(): number {
    return this.#all.pieces.value;
  }

  set pieces(value: number) {
    this.#all.pieces.value = value;
  }

  get epoch(): number {
    return this.#all.epoch.value;
  }

  set epoch(value: number) {
    this.#all.epoch.value = value;
  }
}

const NOTHING: Calls = {
  run: () => {},
  isTired: () => false,
  hasWaitedEnough: () => false,
  over: () => {},
  wake: () => {},
};

/** The numbers of the constants of that file. */
const numbers = Object.fromEntries(
  Object.entries(instanceOn(memoryOf(), NOTHING)).flatMap(([name, value]) =>
    value instanceof WebAssembly.Global && /^[A-Z]/.test(name) ? [[name, value.value]] : [],
  ),
) as Record<string, number>;

const numberOf = (name: string): number => {
  const number = numbers[name];
  if (number === undefined) throw new Error(`assembly/protocol.ts: expected a constant ${name}`);
  return number;
};

/** The steps. */
export const S = {
  BEGIN: numberOf("BEGIN"),
  STOPPED: numberOf("STOPPED"),
  IDLE: numberOf("IDLE"),
  SLEEPY: numberOf("SLEEPY"),
  ASLEEP: numberOf("ASLEEP"),
  AWAKE: numberOf("AWAKE"),
  LOOK: numberOf("LOOK"),
  WHICH: numberOf("WHICH"),
  RUN: numberOf("RUN"),
  NONE: numberOf("NONE"),
  COUNT: numberOf("COUNT"),
  WAIT: numberOf("WAIT"),
  AGAIN: numberOf("AGAIN"),
  ENDED: numberOf("ENDED"),
  DONE_ALL: numberOf("DONE_ALL"),
};

/** The places of words of all threads, and of the first worker's QUEUE. */
export const EPOCH = numberOf("EPOCH") / 4;
export const SLEEPERS = numberOf("SLEEPERS") / 4;
export const STOP = numberOf("STOP") / 4;
export const QUEUE = numberOf("QUEUE") / 4;
