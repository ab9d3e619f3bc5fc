// Cloudflare's workerd forbids compiling bytes, but an imported .wasm file arrives compiled.

import { checkModule } from "./compile.js";
import module from "./kernels.wasm";

/** The compiled binary. */
export const kernelsModule = (): WebAssembly.Module => checkModule(module);
