// What the binary of `batchnorm-wasm/threads` exports. It has no kernels of its own.
export { piece, poolMoments, poolSums } from "./pieces";
