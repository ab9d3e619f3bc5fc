// The binaries are part of the bundle, as text. Each is compiled at first use, but in Cloudflare's workerd at import: most
// bundlers neither set the condition `workerd` nor take imports of .wasm files, and workerd lets bytes be compiled only
// while a Worker starts, from the compatibility date 2025-06-01 on
// (https://github.com/cloudflare/workerd/issues/4587).

import { compile, decode } from "./compile.js";
import { TEXT as FROZEN } from "./frozen-text.js";
import { TEXT as KERNELS } from "./kernels-text.js";

// Pure, so that bundlers leave out a binary that nothing uses.
let frozen = /* @__PURE__ */ atImport(FROZEN);
let kernels = /* @__PURE__ */ atImport(KERNELS);

function atImport(text: string): WebAssembly.Module | undefined {
  try {
    // https://developers.cloudflare.com/workers/runtime-apis/web-standards/#navigatoruseragent
    if (globalThis.navigator?.userAgent === "Cloudflare-Workers") return compile(decode(text));
  } catch {
    // An older date, or no start: the first use of the kernels says what to do.
  }
  return undefined;
}

/** The compiled binary of frozen layers, which all layers have; one per realm. */
export const frozenModule = (): WebAssembly.Module => (frozen ??= compile(decode(FROZEN)));

/** The compiled binary that other layers have besides; one per realm. */
export const kernelsModule = (): WebAssembly.Module => (kernels ??= compile(decode(KERNELS)));
