// Makes a WebAssembly.Module and its instance of what a build contains, and says in its errors what to do in a
// runtime that does not allow it.

import { describe, UnsupportedError } from "../errors.js";

/** The error that names what the runtime lacks, and the runtime's own message. */
const unsupported = (expected: string, cause: unknown): UnsupportedError =>
  new UnsupportedError("WebAssembly", expected, String(cause), { cause });

/** The permission that a Content-Security-Policy or an edge runtime has to give. */
const LEAVE =
  "leave to compile it (Content-Security-Policy: add 'wasm-unsafe-eval' to script-src; edge: use the " +
  "condition workerd or edge-light, or import it while the Worker starts)";

/** Compiles synchronously. Throws `UnsupportedError`. */
export function compile(bytes: Uint8Array<ArrayBuffer>): WebAssembly.Module {
  try {
    return new WebAssembly.Module(bytes);
  } catch (cause) {
    throw unsupported(wanted(bytes), cause);
  }
}

/** What the runtime lacks, if it could not compile these bytes. They are known to be valid. */
function wanted(bytes: Uint8Array<ArrayBuffer>): string {
  try {
    // Validating is not compiling, so no policy forbids it. If it succeeds, the runtime has what the binary needs.
    if (WebAssembly.validate(bytes)) return LEAVE;
  } catch {
    return "a runtime that has it (no --jitless, no Lockdown Mode)";
  }
  return "a runtime with SIMD (update to Chromium 114, Firefox 90, Safari 16.4, Node 20 or later)";
}

/** Returns `module` if the bundler has made a WebAssembly.Module of the imported .wasm file; throws if not. */
export function checkModule(module: WebAssembly.Module): WebAssembly.Module {
  // Not by instanceof, because in an edge runtime the module may come from another realm.
  if (Object.prototype.toString.call(module) === "[object WebAssembly.Module]") return module;
  throw new UnsupportedError(
    "WebAssembly",
    "the bundler to give an imported .wasm file as a WebAssembly.Module",
    `${describe(module)}; without the condition workerd or edge-light the package compiles bytes`,
  );
}

/** This many codes stand for a byte by themselves. The last two characters of the alphabet begin a pair. */
const SINGLES = 90;

/**
 * The bytes that text in printable ASCII stands for, as `encode` in scripts/bundle.mjs writes it. Bytes 0xfb to 0xff
 * and 0 to 0x54, which are most of a SIMD binary, take one character, the others two. Unlike in base64, no character
 * holds bits of two bytes, so a server's compression finds repeated bytes. The alphabet is rotated so that frequent
 * bytes become characters that are frequent in JavaScript, and both compress well together (docs/tuning.md).
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
 * Makes an instance and returns its exports. Throws `UnsupportedError`, as `compile` does, because WebKit compiles
 * under any Content-Security-Policy and refuses only here.
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
