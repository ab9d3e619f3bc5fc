// From what a build has to a WebAssembly.Module and its instance, and what to do where that is not
// possible.

import { describe, UnsupportedError } from "../errors.js";

/** The error that names what is missing and what was said. */
const unsupported = (expected: string, cause: unknown): UnsupportedError =>
  new UnsupportedError("WebAssembly", expected, String(cause), { cause });

/** What a Content-Security-Policy or an edge runtime has to give. */
const LEAVE =
  "leave to compile it (Content-Security-Policy: add 'wasm-unsafe-eval' to script-src; edge: use the " +
  "condition workerd or edge-light)";

/** Compiles synchronously. Throws `UnsupportedError`. */
export function compile(bytes: Uint8Array<ArrayBuffer>): WebAssembly.Module {
  try {
    return new WebAssembly.Module(bytes);
  } catch (cause) {
    throw unsupported(wanted(bytes), cause);
  }
}

/** Why bytes that are known to be good did not compile. */
function wanted(bytes: Uint8Array<ArrayBuffer>): string {
  try {
    // This compiles nothing, so that no policy forbids it.
    if (WebAssembly.validate(bytes)) return LEAVE;
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
    "WebAssembly",
    "the bundler to give an imported .wasm file as a WebAssembly.Module",
    `${describe(module)}; without the condition workerd or edge-light the package compiles bytes`,
  );
}

/** So many codes are characters of their own; the last two of the alphabet begin a pair. */
const SINGLES = 90;

/**
 * The bytes of text in printable ASCII, as `encode` in scripts/bundle.mjs writes it: 0xfb to 0xff and
 * 0 to 0x54, which are most of a SIMD binary, in one character, the others in two. Unlike base64 it
 * keeps bytes apart, so that a server's compression finds the repetitions. The alphabet is rotated so that
 * common bytes are common characters of JavaScript, and one code compresses both well (docs/tuning.md).
 */
export function decode(text: string): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  const codeAt = (i: number): number => (text.charCodeAt(i) - 7) % 92;
  for (let i = 0; i < text.length; i++) {
    let code = codeAt(i);
    if (code >= SINGLES) code += 91 * (code - SINGLES) + codeAt(++i);
    bytes.push(code - 5);
  }
  return new Uint8Array(bytes);
}

/**
 * The exports of an instance. WebKit compiles modules under any Content-Security-Policy, and refuses
 * only here. Throws `UnsupportedError`, too.
 */
export function instantiate(
  module: WebAssembly.Module,
  imports: WebAssembly.Imports,
): WebAssembly.Exports {
  try {
    return new WebAssembly.Instance(module, imports).exports;
  } catch (cause) {
    throw unsupported(LEAVE, cause);
  }
}
