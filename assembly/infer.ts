// What the small binary exports. It has the kernels of test time alone: see index.ts.
export { affineStrips, affinePlanes, activeStrips, activePlanes } from "./affine";
export { spread } from "./channel";
