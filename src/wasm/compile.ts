// Compiles the binary from bytes, and says what to do where that is not possible.

import { UnsupportedError } from "../errors.js";

/** Compiles synchronously. Throws `UnsupportedError` with what may be missing and what was said. */
export function compile(bytes: Uint8Array<ArrayBuffer>): WebAssembly.Module {
  try {
    return new WebAssembly.Module(bytes);
  } catch (cause) {
    throw new UnsupportedError(
      "WebAssembly: expected a runtime with SIMD (Chromium 91, Firefox 89, Safari 16.4, Node 16.4 " +
        "or later) that may compile it (under a Content-Security-Policy: the source " +
        `'wasm-unsafe-eval' in the directive script-src), got ${cause}`,
    );
  }
}

/**
 * Bytes of hexadecimal text. Base64 is shorter, but not once a server has compressed it: it hides
 * the repetitions of a binary (5.4 KB gzipped where this has 4.4).
 */
export function decode(text: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(text.length / 2);
  for (let i = 0; i < bytes.length; i++)
    bytes[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}
