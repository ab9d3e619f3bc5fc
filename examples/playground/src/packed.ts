/**
 * What the page loads, packed small: digits at 16 grey levels, the network's weights as bfloat16,
 * all of it gzipped, so that a host that compresses nothing sends no more.
 */

import { BatchNorm, type Snapshot } from "batchnorm-wasm";
import { CLASSES, type Digits, PIXELS } from "../../mnist/digits.js";
import type { Layer } from "../../mnist/layers.js";
import type { About } from "../../mnist/saved.js";

/** Bytes of one packed digit: its label, and half a byte for each pixel. */
const DIGIT = 1 + PIXELS / 2;

/** Labels first, then pixels, two to a byte, the earlier one in the low half. */
export function packDigits({ count, images, labels }: Digits): Uint8Array {
  const bytes = new Uint8Array(count * DIGIT);
  bytes.set(labels);
  for (let i = 0; i < count * PIXELS; i += 2) {
    bytes[count + i / 2] = level(images[i]) | (level(images[i + 1]) << 4);
  }
  return bytes;
}

/** 0 … 255 to 0 … 15. */
const level = (grey: number): number => Math.round(grey / 17);

/** @throws Error if `bytes` are no packed digits. */
export function unpackDigits(bytes: Uint8Array): Digits {
  const count = bytes.length / DIGIT;
  if (!Number.isInteger(count)) {
    throw new Error(`digits: expected a multiple of ${DIGIT} bytes, got ${bytes.length}.`);
  }
  const labels = bytes.slice(0, count);
  const wrong = labels.find((label) => label >= CLASSES);
  if (wrong !== undefined) throw new Error(`labels: expected 0 to 9, got ${wrong}.`);
  const images = new Uint8Array(count * PIXELS);
  for (let i = 0; i < images.length; i += 2) {
    const two = bytes[count + i / 2];
    images[i] = 17 * (two & 15);
    images[i + 1] = 17 * (two >> 4);
  }
  return { count, images, labels };
}

/** How a packed network begins, as JSON; the numbers of dense layers follow it. */
interface Header {
  readonly about: About;
  readonly layers: readonly {
    readonly inputs: number;
    readonly outputs: number;
    readonly norm: Snapshot | null;
  }[];
}

/** The length of the header, the header, then the high bytes of all weights, then the low ones. */
export function packNetwork(layers: readonly Layer[], about: About): Uint8Array {
  const header: Header = {
    about,
    layers: layers.map(({ inputs, outputs, norm }) => ({
      inputs,
      outputs,
      norm: norm?.snapshot() ?? null,
    })),
  };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const numbers = Float32Array.from(
    layers.flatMap(({ weight, bias }) => [...weight, ...(bias ?? [])]),
  );
  const { high, low } = toBfloat16(numbers);
  const bytes = new Uint8Array(4 + text.length + 2 * numbers.length);
  new DataView(bytes.buffer).setUint32(0, text.length, true);
  bytes.set(text, 4);
  bytes.set(high, 4 + text.length);
  bytes.set(low, 4 + text.length + numbers.length);
  return bytes;
}

/** @throws Error if `bytes` are no packed network. */
export function unpackNetwork(bytes: Uint8Array): { layers: Layer[]; about: About } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = bytes.length < 4 ? 0 : view.getUint32(0, true);
  const header: Header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  const rest = bytes.subarray(4 + length);
  const count = rest.length / 2;
  const size = ({ inputs, outputs, norm }: Header["layers"][number]): number =>
    (inputs + (norm === null ? 1 : 0)) * outputs;
  const expected = header.layers.reduce((sum, layer) => sum + size(layer), 0);
  if (count !== expected) throw new Error(`network: expected ${expected} weights, got ${count}.`);
  const numbers = fromBfloat16(rest.subarray(0, count), rest.subarray(count));
  let at = 0;
  const take = (n: number): Float32Array => numbers.slice(at, (at += n));
  const layers = header.layers.map(({ inputs, outputs, norm }): Layer => {
    const weight = take(inputs * outputs);
    const bias = norm === null ? take(outputs) : null;
    return { inputs, outputs, weight, bias, norm: norm && BatchNorm.fromSnapshot(norm) };
  });
  return { layers, about: header.about };
}

/** The upper halves of finite float32, rounded to nearest, ties to even, as two rows of bytes. */
export function toBfloat16(values: Float32Array): { high: Uint8Array; low: Uint8Array } {
  const bits = new Uint32Array(Float32Array.from(values).buffer).map(
    (all) => (all + 0x7fff + ((all >>> 16) & 1)) >>> 16,
  );
  return { high: Uint8Array.from(bits, (half) => half >> 8), low: Uint8Array.from(bits) };
}

export function fromBfloat16(high: Uint8Array, low: Uint8Array): Float32Array {
  const bits = new Uint32Array(high.length);
  for (let i = 0; i < bits.length; i++) bits[i] = (high[i] << 24) | (low[i] << 16);
  return new Float32Array(bits.buffer);
}

/** Undoes gzip. */
export async function gunzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
