// What the binary of `batchnorm-wasm/threads` exports. It has no kernels of its own.
export { pieces, settle, work } from "./crew";
export { stop } from "./protocol";
export {
  affinePlanes, affineStrips, affineSweep, backward, gatePlanes, gateRows,
  gradientPlanes, gradientStrips, gradientSumsPlanes, gradientSumsRows, gradientSweep,
  momentsPlanes, momentsRows,
} from "./shares";
export { tell } from "./told";
