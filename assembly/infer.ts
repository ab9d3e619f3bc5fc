// The surface of the small binary, for test time alone: see index.ts.
export { affineStrips, affinePlanes } from "./affine";
export { spread } from "./channel";
