// Vercel's edge functions and Next.js' middleware forbid compiling bytes, but a .wasm file that is imported with the
// query below arrives compiled.

import { checkModule } from "./compile.js";
import frozen from "./frozen.wasm?module";
import kernels from "./kernels.wasm?module";

/** The compiled binary of frozen layers, which all layers have. */
export const frozenModule = (): WebAssembly.Module => checkModule(frozen);

/** The compiled binary that other layers have besides. */
export const kernelsModule = (): WebAssembly.Module => checkModule(kernels);
