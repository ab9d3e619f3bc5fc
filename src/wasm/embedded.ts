// The binary is part of the bundle, as text. It is compiled at first use, but in Cloudflare's workerd at import: most
// bundlers neither set the condition `workerd` nor take imports of .wasm files, and workerd lets bytes be compiled only
// while a Worker starts, from the compatibility date 2025-06-01 on
// (https://github.com/cloudflare/workerd/issues/4587).

import { compile, decode } from "./compile.js";
import { TEXT } from "./kernels-text.js";

// Pure, so that bundlers leave it out where nothing uses the kernels.
let compiled = /* @__PURE__ */ atImport();

function atImport(): WebAssembly.Module | undefined {
  try {
    // https://developers.cloudflare.com/workers/runtime-apis/web-standards/#navigatoruseragent
    if (globalThis.navigator?.userAgent === "Cloudflare-Workers") return compile(decode(TEXT));
  } catch {
    // An older date, or no start: the first use of the kernels says what to do.
  }
  return undefined;
}

/** The compiled binary, one per realm. */
export const kernelsModule = (): WebAssembly.Module => (compiled ??= compile(decode(TEXT)));
