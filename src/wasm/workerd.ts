// Cloudflare's workerd compiles no bytes; a .wasm that is imported arrives compiled.

import { checkModule } from "./compile.js";
import module from "./kernels.wasm";

/** The compiled binary. */
export const kernelsModule = (): WebAssembly.Module => checkModule(module);
