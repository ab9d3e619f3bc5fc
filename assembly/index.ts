// What the binary of layers exports; they have the kernels of frozen.ts besides. In all of them, a kernel takes its outputs first,
// then its inputs, numbers and dimensions. Pointers and strides are in bytes; all other sizes count float32 values. Nothing
// is kept between calls.
export { momentsRows, momentsPlanes } from "./moments";
export { gateRows, gatePlanes } from "./activation";
export { keepRows, keepPlanes } from "./bits";
export { gradientSumsRows, gradientSumsPlanes } from "./sums";
export { gradientStrips, gradientSweep, gradientPlanes } from "./gradient";
export {
  mergeMoments, mergeSums,
  finishMoments, moveRunning,
  roundMeans, scaleShift, gradientTerms,
} from "./channel";
