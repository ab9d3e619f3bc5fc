// From what a build has to a WebAssembly.Module, and what to do where that is not possible.

import { describe, UnsupportedError } from "../errors.js";

/** Compiles synchronously. Throws `UnsupportedError` with what may be missing and what was said. */
export function compile(bytes: Uint8Array<ArrayBuffer>): WebAssembly.Module {
  try {
    return new WebAssembly.Module(bytes);
  } catch (cause) {
    throw new UnsupportedError(`WebAssembly: expected ${wanted(bytes)}, got ${cause}`, { cause });
  }
}

/** Why bytes that are known to be good did not compile. */
function wanted(bytes: Uint8Array<ArrayBuffer>): string {
  try {
    // This compiles nothing, so that no policy forbids it.
    if (WebAssembly.validate(bytes)) {
      return (
        "leave to compile it (under a Content-Security-Policy add the source 'wasm-unsafe-eval' to " +
        'the directive script-src; in an edge runtime have the bundler use the package condition "workerd" ' +
        'or "edge-light")'
      );
    }
  } catch {
    // No WebAssembly at all.
  }
  return "a runtime with SIMD (update to Chromium 114, Firefox 90, Safari 16.4, Node 20 or later)";
}

/** `module`, if the bundler made one of the .wasm file that is imported. */
export function checkModule(module: WebAssembly.Module): WebAssembly.Module {
  // Not instanceof: in an edge runtime it may come from another realm.
  if (Object.prototype.toString.call(module) === "[object WebAssembly.Module]") return module;
  throw new UnsupportedError(
    "WebAssembly: expected the bundler to give an imported .wasm file as a WebAssembly.Module, got " +
      `${describe(module)}; without the package condition that led here, "workerd" or "edge-light", ` +
      "the package compiles bytes of its own",
  );
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
