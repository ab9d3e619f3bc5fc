// One call with hostile arrays, and what it may come to: what the same call gives with plain arrays, or an error of
// ours after which nothing has changed.

import { deepStrictEqual } from "node:assert";
import { BatchNormError } from "batchnorm-wasm";
import { isTyped, RIGHT, release, type Typed, valuesIn, WRONG } from "./arrays.js";
import { MARKER, type Method, plainOf, stateOf, type World, worldOf } from "./methods.js";

/** How each array of a call is made: a name in RIGHT or in WRONG. */
export type Ways = Readonly<Record<string, string>>;

interface Call {
  readonly world: World;
  readonly arrays: Record<string, unknown>;
}

function prepare(method: Method, rows: number, ways: Ways): Call {
  const world = worldOf(rows);
  const arrays: Record<string, unknown> = {};
  for (const [name, { kind, of }] of Object.entries(method.slots)) {
    const make = { ...RIGHT, ...WRONG }[ways[name] ?? "plain"]!;
    arrays[name] = make(kind, of(rows, world));
  }
  return { world, arrays };
}

/** What the arrays hold that can be read at all. */
const held = (arrays: Record<string, unknown>): unknown =>
  Object.fromEntries(
    Object.entries(arrays).map(([name, array]) => [name, isTyped(array) ? valuesIn(array) : null]),
  );

/** All there is to see after a call. */
const outcome = async (method: Method, { world, arrays }: Call, rows: number) => {
  const given = method.call(world, arrays as Record<string, Typed>, rows);
  // Awaiting an array would ask it for a method `then`.
  const answer = plainOf(isTyped(given) ? given : await given);
  return { answer, arrays: held(arrays), state: stateOf(world) };
};

/** The same call with plain arrays; it is made once, for all trials of a method. */
const known = new Map<string, unknown>();
async function expected(method: Method, rows: number): Promise<unknown> {
  const key = `${method.name} ${rows}`;
  if (!known.has(key)) {
    const plain = await outcome(method, prepare(method, rows, {}), rows);
    if (JSON.stringify(plain).includes(String(MARKER))) throw new Error("the marker in an answer");
    known.set(key, plain);
  }
  return known.get(key);
}

/** Makes one trial. Returns "right" or the name of the error; throws if it is neither. */
export async function trial(method: Method, rows: number, ways: Ways): Promise<string> {
  const right = await expected(method, rows);
  const call = prepare(method, rows, ways);
  const before = { arrays: held(call.arrays), state: stateOf(call.world) };
  const { lastBatch } = call.world.layer;
  const refused = Object.values(ways).some((way) => way in WRONG);
  let thrown: unknown;
  try {
    const got = await outcome(method, call, rows);
    if (!refused) {
      deepStrictEqual(got, right);
      return "right";
    }
  } catch (error) {
    thrown = error;
  } finally {
    release();
  }
  if (!(thrown instanceof BatchNormError) || !refused) {
    throw thrown ?? new Error("accepted what is no such array");
  }
  deepStrictEqual({ arrays: held(call.arrays), state: stateOf(call.world) }, before);
  if (call.world.layer.lastBatch !== lastBatch) throw new Error("lastBatch changed");
  return thrown.name;
}
