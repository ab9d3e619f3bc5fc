// Compiles the binary from bytes, and says what to do where that is not possible.

import { UnsupportedError } from "../errors.js";

// The smallest module with a SIMD instruction: () -> i8x16.splat(0), dropped
// (https://github.com/GoogleChromeLabs/wasm-feature-detect, detector "simd").
const SIMD_PROBE = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15,
  253, 98, 11,
];

/** Compiles synchronously. Throws `UnsupportedError` with what is missing. */
export function compile(bytes: Uint8Array<ArrayBuffer>): WebAssembly.Module {
  if (typeof WebAssembly !== "object") {
    throw new UnsupportedError(
      "WebAssembly: expected a runtime that has it, got one that does not",
    );
  }
  if (!WebAssembly.validate(new Uint8Array(SIMD_PROBE))) {
    throw new UnsupportedError(
      "WebAssembly: expected SIMD (Chromium 91, Firefox 89, Safari 16.4, Node 16.4 or later), " +
        "got a runtime without it",
    );
  }
  try {
    return new WebAssembly.Module(bytes);
  } catch (cause) {
    throw new UnsupportedError(
      "WebAssembly: expected a runtime that compiles bytes, got one that forbids it " +
        `(${(cause as Error).message}). Under a Content-Security-Policy, allow it by the source ` +
        "'wasm-unsafe-eval' in the directive script-src",
    );
  }
}

/** Bytes of base64 text. */
export function decode(base64: string): Uint8Array<ArrayBuffer> {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}
