// What the binary of `batchnorm-wasm/infer` exports: the kernels of frozen.ts in a form of fewer bytes.
export { smallStrips as affineStrips, smallPlanes as affinePlanes } from "./affine";
export { spread } from "./channel";
