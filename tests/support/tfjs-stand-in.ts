// Takes the place of `@tensorflow/tfjs` in programs that the tests run. It has the operations, gradients and layers
// of that package, on the cpu backend. The package itself takes 286 MB, and is not installed for the tests.

import "@tensorflow/tfjs-backend-cpu";
import "@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops.js";
import "@tensorflow/tfjs-core/dist/register_all_gradients.js";

export * from "@tensorflow/tfjs-core";
export * from "@tensorflow/tfjs-layers";
