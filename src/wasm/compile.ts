// Compiles the binary from bytes, and says what to do where that is not possible.

import { UnsupportedError } from "../errors.js";

/** Compiles synchronously. Throws `UnsupportedError` with what may be missing and what was said. */
export function compile(bytes: Uint8Array<ArrayBuffer>): WebAssembly.Module {
  try {
    return new WebAssembly.Module(bytes);
  } catch (cause) {
    throw new UnsupportedError(
      "WebAssembly: expected a runtime with SIMD (Chromium 114, Firefox 90, Safari 16.4, Node 20 " +
        "or later) that may compile it (under a Content-Security-Policy: the source " +
        `'wasm-unsafe-eval' in the directive script-src), got ${cause}`,
    );
  }
}

/** The first characters of the alphabet, from "#" on: each is a byte of its own. */
const SINGLES = 90;

/**
 * The bytes of text in printable ASCII, as scripts/bundle.mjs writes it: 0xf0 to 0xff and 0 to 0x49,
 * which are most of a SIMD binary, in one character, the others in two. Unlike base64 it keeps bytes
 * apart, so that a server's compression finds the repetitions: gzipped, the binary comes to 3.9 KB,
 * this to 4.1, base64 to 5.4.
 */
export function decode(text: string): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  for (let i = 0; i < text.length; i++) {
    let code = text.charCodeAt(i) - 35;
    if (code >= SINGLES) code += 91 * (code - SINGLES) + text.charCodeAt(++i) - 35;
    bytes.push(code - 16);
  }
  return new Uint8Array(bytes);
}
