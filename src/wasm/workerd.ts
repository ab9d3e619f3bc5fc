// Cloudflare's workerd forbids compiling bytes, but an imported .wasm file arrives compiled.

import { checkModule } from "./compile.js";
import frozen from "./frozen.wasm";
import kernels from "./kernels.wasm";

/** The compiled binary of frozen layers, which all layers have. */
export const frozenModule = (): WebAssembly.Module => checkModule(frozen);

/** The compiled binary that other layers have besides. */
export const kernelsModule = (): WebAssembly.Module => checkModule(kernels);
