// @tensorflow/tfjs is tfjs-core and more; bench/ uses only what tfjs-core has. See jax.d.ts.

export * from "@tensorflow/tfjs-core";
