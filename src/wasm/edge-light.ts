// Vercel's edge functions and Next.js' middleware compile no bytes; an import with this query arrives
// compiled.

import { checkModule } from "./compile.js";
import module from "./kernels.wasm?module";

/** The compiled binary. */
export const kernelsModule = (): WebAssembly.Module => checkModule(module);
