// What the binary of frozen layers exports. Layers have it too, besides that of index.ts, so the package has each of these
// kernels once.
export { affineStrips, affineSweep, affinePlanes } from "./affine";
export { spread } from "./channel";
