// The binary is part of the bundle, as text. It is compiled at first use.

import { compile, decode } from "./compile.js";
import { TEXT } from "./kernels-text.js";

let compiled: WebAssembly.Module | undefined;

/** The compiled binary, one per realm. */
export const kernelsModule = (): WebAssembly.Module => (compiled ??= compile(decode(TEXT)));
