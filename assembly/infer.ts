// What the small binary exports. It has the kernels of test time alone: see index.ts.
export { smallStrips as affineStrips, smallPlanes as affinePlanes } from "./affine";
export { spread } from "./channel";
