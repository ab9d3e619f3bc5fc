// The surface of the binary. Arguments go outputs, inputs, scalars, dimensions; pointers are bytes,
// strides are bytes, everything else counts float32 values. Nothing is kept between calls.
export { momentsRows, momentsPlanes } from "./moments";
export { affineStrips, affineSweep, affinePlanes } from "./affine";
export { gradientSumsRows, gradientSumsPlanes, gradientStrips, gradientSweep, gradientPlanes } from "./gradient";
export {
  mergeMoments, mergeSums, spread,
  finishMoments, moveRunning,
  roundMeans, scaleShift, gradientTerms,
} from "./channel";
