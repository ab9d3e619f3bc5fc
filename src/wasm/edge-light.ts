// Vercel's edge functions and Next.js' middleware forbid compiling bytes, but a .wasm file that is imported with the
// query below arrives compiled.

import { checkModule } from "./compile.js";
import module from "./kernels.wasm?module";

/** The compiled binary. */
export const kernelsModule = (): WebAssembly.Module => checkModule(module);
