// All that is measured, in the order in which tables show it: our ways to be called, other libraries, copies.

import { ours, PLAIN, RESIDENT } from "../ours.js";
import { copyFresh, copyPlain, copyResident, copyThrough } from "./copy.js";
import { jax } from "./jax.js";
import { js } from "./js.js";
import { jsStraight } from "./js-straight.js";
import { onednn, pytorch } from "./native.js";
import { onnxruntimeNode, onnxruntimeWeb } from "./onnx.js";
import { oursIn, Page, tfjsIn } from "./page.js";
import { Missing, type Peer } from "./peer.js";
import { tfjs } from "./tfjs.js";

export const OURS: readonly Peer[] = [ours.resident, ours.plain, ours.fresh, ours.frozen];
/** What a short run measures: two of our ways, and the JavaScript loop. */
export const QUICK_SIDES: readonly Peer[] = [ours.resident, ours.plain, js];
export const COPIES: readonly Peer[] = [copyPlain, copyResident, copyThrough, copyFresh];
export const JS: Peer = js;

const LOADERS: Readonly<Record<string, () => Promise<Peer>>> = {
  [jsStraight.name]: async () => jsStraight,
  "tfjs-cpu": () => tfjs("cpu"),
  "tfjs-wasm": () => tfjs("wasm"),
  "jax-js": jax,
  "onnxruntime-web": onnxruntimeWeb,
  "onnxruntime-node": onnxruntimeNode,
  PyTorch: () => pytorch(),
  oneDNN: onednn,
};

/** The names that `--side` takes. */
export const SIDES: readonly string[] = [JS.name, ...Object.keys(LOADERS)];

export interface Skipped {
  readonly name: string;
  readonly reason: string;
  readonly remedy: string;
}

/** What a block is measured against: libraries that can do one. */
export const BLOCK_LOADERS: Readonly<Record<string, () => Promise<Peer>>> = {
  PyTorch: () => pytorch(),
  "PyTorch, in place": () => pytorch(true),
  oneDNN: onednn,
  "onnxruntime-web": onnxruntimeWeb,
  "tfjs-wasm": () => tfjs("wasm"),
};

/** Ours in the page in which tfjs-wasm runs, by the way it is called. */
export const inChromium = (way: string, threads: number): string =>
  `${way}, ${threads} threads, in Chromium`;

/** What is measured on several threads, and ours in the page in which tfjs-wasm runs. */
export function threadLoaders(threads: number): Readonly<Record<string, () => Promise<Peer>>> {
  let page: Promise<Page> | undefined;
  const opened = () => {
    page ??= Page.start(threads);
    return page;
  };
  return {
    PyTorch: () => pytorch(),
    oneDNN: onednn,
    "onnxruntime-web": () => onnxruntimeWeb(threads),
    "tfjs-wasm": async () => tfjsIn(await opened()),
    [inChromium(RESIDENT, threads)]: async () =>
      oursIn(await opened(), "resident", inChromium(RESIDENT, threads)),
    [inChromium(PLAIN, threads)]: async () =>
      oursIn(await opened(), "plain", inChromium(PLAIN, threads)),
  };
}

/** Loads the libraries that are wanted. Those that are not installed come back as skipped. */
export async function loadPeers(
  wanted: (name: string) => boolean,
  loaders = LOADERS,
): Promise<{ peers: Peer[]; skipped: Skipped[] }> {
  const peers: Peer[] = [];
  const skipped: Skipped[] = [];
  for (const [name, load] of Object.entries(loaders)) {
    if (!wanted(name)) continue;
    try {
      peers.push(await load());
    } catch (error) {
      if (!(error instanceof Missing)) throw error;
      skipped.push({ name, reason: error.message, remedy: error.remedy });
    }
  }
  return { peers, skipped };
}
