/** The tests of the adapter once more, on the wasm backend, whose tensors are read in place. */

import { chosen } from "./support/tfjs.js";

chosen.backend = "wasm";
await import("./tfjs.test.js");
