// What the small binary exports. It has the kernels of test time alone: see index.ts.
export { affineStrips, affinePlanes } from "./affine";
export { spread } from "./channel";
