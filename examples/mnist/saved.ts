/**
 * A trained network as JSON, and back. Dense weights are float32, little-endian, in base64; each
 * batch-norm layer is its own `snapshot()`. Nothing but `batchnorm-wasm` is needed to load one, in
 * Node or in a browser.
 */

import { BatchNorm, type Snapshot } from "batchnorm-wasm";
import type { Layer } from "./layers.js";

const FORMAT = "batchnorm-wasm/examples/mnist";
const VERSION = 1;

/** How the network came about. */
export interface About {
  readonly steps: number;
  readonly seed: number;
  readonly learningRate: number;
  readonly batchSize: number;
  /** Share of the 10,000 test digits answered rightly, one at a time by running averages. */
  readonly testAccuracy: number;
}

export interface SavedNetwork {
  readonly format: typeof FORMAT;
  readonly version: typeof VERSION;
  readonly about: About;
  readonly layers: {
    readonly inputs: number;
    readonly outputs: number;
    readonly weight: string;
    readonly bias: string | null;
    readonly norm: Snapshot | null;
  }[];
}

export function encodeNetwork(layers: readonly Layer[], about: About): SavedNetwork {
  return {
    format: FORMAT,
    version: VERSION,
    about,
    layers: layers.map(({ inputs, outputs, weight, bias, norm }) => ({
      inputs,
      outputs,
      weight: toBase64(weight),
      bias: bias && toBase64(bias),
      norm: norm?.snapshot() ?? null,
    })),
  };
}

/** @throws Error that names what is wrong with `saved`. */
export function decodeNetwork(saved: SavedNetwork): { layers: Layer[]; about: About } {
  if (saved?.format !== FORMAT || saved.version !== VERSION) {
    const got = `${saved?.format} version ${saved?.version}`;
    throw new Error(`network: expected ${FORMAT} version ${VERSION}, got ${got}.`);
  }
  const layers = saved.layers.map(({ inputs, outputs, weight, bias, norm }, i): Layer => {
    const before = i === 0 ? inputs : saved.layers[i - 1].outputs;
    if (inputs !== before) {
      throw new Error(`layer ${i}: expected ${before} inputs, got ${inputs}.`);
    }
    const layer = norm && BatchNorm.fromSnapshot(norm);
    if (layer && layer.channels !== outputs) {
      throw new Error(`layer ${i}: expected a norm of ${outputs}, got ${layer.channels}.`);
    }
    return {
      inputs,
      outputs,
      weight: fromBase64(weight, inputs * outputs, `layer ${i}, weight`),
      bias: bias === null ? null : fromBase64(bias, outputs, `layer ${i}, bias`),
      norm: layer,
    };
  });
  return { layers, about: saved.about };
}

function toBase64(values: Float32Array): string {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

function fromBase64(text: string, length: number, name: string): Float32Array {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  if (bytes.length !== 4 * length) {
    throw new Error(`${name}: expected ${4 * length} bytes, got ${bytes.length}.`);
  }
  return new Float32Array(bytes.buffer);
}
