// The page in which bench/peers/page.ts measures what has threads in browsers only. It asks its server for one command after
// the other, and answers each.

import * as tf from "@tensorflow/tfjs";
import { setThreadsCount, setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import { type Layout, makeCase, makeData, type PeerOp } from "./cases.js";
import { PLAIN, RESIDENT } from "./ours.js";
import type { Answer, Peer, Session } from "./peers/peer.js";
import { openTfjs } from "./peers/tfjs-session.js";
import { threaded } from "./threaded.js";

/** What a page can do: `open` starts a session under a number, by which the others name it. */
export type Command =
  | {
      readonly do: "open";
      readonly session: number;
      readonly side: PageSide;
      readonly dims: readonly number[];
      readonly layout: Layout;
      readonly op: PeerOp;
    }
  | { readonly do: "answer" | "close"; readonly session: number }
  | { readonly do: "sample"; readonly session: number; readonly calls: number };

/** TensorFlow.js, and two of our ways on as many threads. */
export type PageSide = "tfjs" | "plain" | "resident";

/** Where arrays of a reply are in its body, in 32-bit floats. */
export interface Reply {
  readonly value?: number;
  readonly arrays?: readonly (readonly [name: string, length: number])[];
  readonly error?: string;
}

const count = Number(new URLSearchParams(location.search).get("threads"));
const sessions = new Map<number, Session>();

const OURS: Readonly<Record<Exclude<PageSide, "tfjs">, Peer>> = {
  plain: threaded(PLAIN, count),
  resident: threaded(RESIDENT, count),
};

async function start(): Promise<void> {
  if (!crossOriginIsolated) throw new Error("the page is not isolated, so there are no threads");
  setThreadsCount(count);
  setWasmPaths("/tfjs/");
  tf.env().set("IS_TEST", true); // no advertisement in the console
  if (!(await tf.setBackend("wasm"))) throw new Error("the wasm backend of tfjs did not start");
  if (!(await tf.env().getAsync("WASM_HAS_MULTITHREAD_SUPPORT")))
    throw new Error("tfjs-wasm has no threads here");
}

async function follow(command: Command): Promise<number | Answer | undefined> {
  if (command.do === "open") {
    const { session, side, dims, layout, op } = command;
    const c = makeCase(dims, layout);
    const data = makeData(c);
    sessions.set(
      session,
      side === "tfjs"
        ? await openTfjs(tf, "wasm", c, op, data)
        : await OURS[side].open(c, op, data),
    );
    return undefined;
  }
  const session = sessions.get(command.session)!;
  if (command.do === "sample") return session.sample(command.calls);
  if (command.do === "answer") return session.answer();
  session.close?.();
  sessions.delete(command.session);
  return undefined;
}

/** Sends a reply: its description in the address, its arrays as the body. */
async function send(reply: Reply, body: BlobPart[] = []): Promise<Command> {
  const address = `/next?${new URLSearchParams({ reply: JSON.stringify(reply) })}`;
  const response = await fetch(address, { method: "POST", body: new Blob(body) });
  return response.json();
}

async function answerTo(command: Command): Promise<Command> {
  const found = await follow(command);
  if (typeof found !== "object") return send({ ...(found !== undefined && { value: found }) });
  // Of a layer without a residual there is no gradient of one.
  const entries = Object.entries(found).filter(([, values]) => values) as [string, Float32Array][];
  return send(
    { arrays: entries.map(([name, { length }]) => [name, length]) },
    // Bodies of requests do not take shared memory.
    entries.map(([, values]) => new Float32Array(values)),
  );
}

async function main(): Promise<void> {
  let next: Command | undefined;
  try {
    await start();
    next = await send({ value: count });
    for (;;) next = await answerTo(next);
  } catch (error) {
    await send({ error: String(error) });
  }
}

void main();
