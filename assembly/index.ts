// What the binary exports. Every kernel takes its outputs first, then its inputs, numbers and dimensions.
// Pointers and strides are in bytes; all other sizes count float32 values. Nothing is kept between calls.
export { momentsRows, momentsPlanes } from "./moments";
export { affineStrips, affineSweep, affinePlanes } from "./affine";
export { gateRows, gatePlanes } from "./activation";
export { keepRows, keepPlanes } from "./bits";
export { gradientSumsRows, gradientSumsPlanes } from "./sums";
export { gradientStrips, gradientSweep, gradientPlanes } from "./gradient";
export {
  mergeMoments, mergeSums, spread,
  finishMoments, moveRunning,
  roundMeans, scaleShift, gradientTerms,
} from "./channel";
