// `@tensorflow/tfjs` for the examples: its operations, gradients and layers, on the cpu backend.

import "@tensorflow/tfjs-backend-cpu";
import "@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops.js";
import "@tensorflow/tfjs-core/dist/register_all_gradients.js";

export * from "@tensorflow/tfjs-core";
export * from "@tensorflow/tfjs-layers";
