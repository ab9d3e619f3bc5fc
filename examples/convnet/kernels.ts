/**
 * Convolutions that train on TensorFlow.js' wasm backend. It has no gradient with respect to the filter of a
 * convolution (tensorflow/tfjs issue 8474), so that no convolutional network trains there. Two more gradients it has,
 * but in loops that take most of a training step.
 *
 * - `Conv2DBackpropFilter`, which is missing: the patches that the filter saw, as a matrix, times dy.
 * - `Conv2DBackpropInput`: dy convolved with the filter turned by 180°, which is a convolution, and fast.
 * - `MaxPoolGrad`: dy goes to the first of the largest values in its window, as on the cpu backend.
 *
 * The first two are equation 9.11 and what follows it in Goodfellow, Bengio & Courville, "Deep Learning" (2016),
 * section 9.5; the matrix of patches is that of Chellapilla, Puri & Simard 2006. Axes are NHWC: examples, height,
 * width, channels.
 */

import type { BackendWasm } from "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";

type Image = tf.Tensor4D;
type Pad = Parameters<typeof tf.conv2d>[3];

/** How a convolution or a pool lies on its input. */
type Window = tf.backend_util.Conv2DInfo;

/** Values of a matrix of patches: 4 MiB. Larger mini-batches are taken in parts of some examples. */
const MOST_PATCHES = 2 ** 20;

/** Registers the three gradients for the wasm backend. Once in a program, before anything trains. */
export function registerGradients(): void {
  const strided = tf.getKernel(tf.Conv2DBackpropInput, "wasm").kernelFunc;
  const kernels: Record<string, tf.KernelFunc> = {
    [tf.Conv2DBackpropFilter]: filterGradient,
    [tf.Conv2DBackpropInput]: (call) => inputGradient(call) ?? strided(call),
    [tf.MaxPoolGrad]: maxPoolGradient,
  };
  for (const [kernelName, kernelFunc] of Object.entries(kernels)) {
    if (tf.getKernel(kernelName, "wasm")) tf.unregisterKernel(kernelName, "wasm");
    tf.registerKernel({ kernelName, backendName: "wasm", kernelFunc });
  }
}

type Call = Parameters<tf.KernelFunc>[0];

/** dW [kH, kW, in, out] = Σ over all positions of the patch [kH·kW·in] times dy [out]. */
function filterGradient({ inputs, attrs, backend }: Call): tf.Tensor {
  const { strides, pad, dimRoundingMode, filterShape } =
    attrs as unknown as tf.Conv2DBackpropFilterAttrs;
  const x = inputs.x as Image;
  const dy = inputs.dy as Image;
  const window = tf.backend_util.computeConv2DInfo(
    x.shape,
    filterShape,
    strides,
    1,
    pad,
    dimRoundingMode,
  );
  const taps = window.filterHeight * window.filterWidth * window.inChannels;
  const positions = window.outHeight * window.outWidth;
  const most = Math.max(1, Math.floor(MOST_PATCHES / (taps * positions)));
  return tf.tidy(() => {
    const rows = tf.reshape(dy, [window.batchSize * positions, window.outChannels]);
    let sum: tf.Tensor | undefined;
    for (let first = 0; first < window.batchSize; first += most) {
      const count = Math.min(most, window.batchSize - first);
      const part = tf.slice(rows, [first * positions, 0], [count * positions, window.outChannels]);
      const product = tf.matMul(patches(backend as BackendWasm, x, window, first, count), part);
      sum = sum === undefined ? product : tf.add(sum, product);
    }
    return tf.reshape(sum as tf.Tensor, filterShape);
  });
}

/** The values under each tap of the filter: [kH·kW·in, count·outHeight·outWidth], 0 where the input is padded. */
function patches(
  backend: BackendWasm,
  x: Image,
  window: Window,
  first: number,
  count: number,
): tf.Tensor2D {
  const { filterHeight, filterWidth, inChannels, inHeight, inWidth, outHeight, outWidth } = window;
  const { strideHeight, strideWidth } = window;
  const { top, left } = window.padInfo;
  const columns = count * outHeight * outWidth;
  const matrix = filled(backend, [filterHeight * filterWidth * inChannels, columns], (to) => {
    const from = backend.typedArrayFromHeap(x);
    let at = 0;
    for (let i = 0; i < filterHeight; i++) {
      for (let j = 0; j < filterWidth; j++) {
        // Outputs from `begin` to `end` see the image through this tap; the others see padding.
        const begin = Math.min(outWidth, Math.max(0, Math.ceil((left - j) / strideWidth)));
        const end = Math.max(
          begin,
          Math.min(outWidth, Math.ceil((inWidth + left - j) / strideWidth)),
        );
        for (let c = 0; c < inChannels; c++) {
          for (let n = first; n < first + count; n++) {
            for (let h = 0; h < outHeight; h++, at += outWidth) {
              const row = h * strideHeight + i - top;
              if (row < 0 || row >= inHeight) {
                to.fill(0, at, at + outWidth);
                continue;
              }
              const base = ((n * inHeight + row) * inWidth + j - left) * inChannels + c;
              const step = strideWidth * inChannels;
              for (let w = 0; w < begin; w++) to[at + w] = 0;
              for (let w = begin; w < end; w++) to[at + w] = from[base + w * step];
              for (let w = end; w < outWidth; w++) to[at + w] = 0;
            }
          }
        }
      }
    }
  });
  return matrix as tf.Tensor2D;
}

/** dx of a convolution with strides of 1; `undefined` for others. */
function inputGradient({ inputs, attrs }: Call): tf.Tensor | undefined {
  const { strides, pad, dimRoundingMode, inputShape } =
    attrs as unknown as tf.Conv2DBackpropInputAttrs;
  const dy = inputs.dy as Image;
  const filter = inputs.filter as Image;
  const { shape } = filter;
  const window = tf.backend_util.computeConv2DInfo(
    inputShape,
    shape,
    strides,
    1,
    pad,
    dimRoundingMode,
  );
  const { top, bottom, left, right } = window.padInfo;
  const [kH, kW] = shape;
  const around = [kH - 1 - top, kH - 1 - bottom, kW - 1 - left, kW - 1 - right];
  if (window.strideHeight !== 1 || window.strideWidth !== 1 || around.some((n) => n < 0))
    return undefined;
  return tf.tidy(() => {
    const turned = tf.transpose(tf.reverse(filter, [0, 1]), [0, 1, 3, 2]) as Image;
    const [above, below, before, behind] = around;
    const zeros = [
      [0, 0],
      [above, below],
      [before, behind],
      [0, 0],
    ] as unknown as Pad;
    return tf.conv2d(dy, turned, 1, zeros);
  });
}

/** dx of max pooling: dy of each window, where its first largest value is. */
function maxPoolGradient({ inputs, attrs, backend }: Call): tf.Tensor {
  const { filterSize, strides, pad, dimRoundingMode } = attrs as unknown as tf.MaxPoolGradAttrs;
  const x = inputs.input as Image;
  const dy = inputs.dy as Image;
  const window = tf.backend_util.computePool2DInfo(
    x.shape,
    filterSize,
    strides,
    1,
    pad,
    dimRoundingMode,
  );
  const { inHeight, inWidth, outHeight, outWidth, inChannels, batchSize } = window;
  const { top, left } = window.padInfo;
  const wasm = backend as BackendWasm;
  return filled(wasm, x.shape, (dx) => {
    const values = wasm.typedArrayFromHeap(x);
    const gradients = wasm.typedArrayFromHeap(dy);
    dx.fill(0);
    let at = 0;
    for (let n = 0; n < batchSize; n++) {
      for (let h = 0; h < outHeight; h++) {
        const firstRow = Math.max(0, h * window.strideHeight - top);
        const lastRow = Math.min(inHeight, h * window.strideHeight - top + window.filterHeight);
        for (let w = 0; w < outWidth; w++) {
          const firstColumn = Math.max(0, w * window.strideWidth - left);
          const lastColumn = Math.min(inWidth, w * window.strideWidth - left + window.filterWidth);
          for (let c = 0; c < inChannels; c++, at++) {
            let largest = Number.NEGATIVE_INFINITY;
            let place = -1;
            for (let row = firstRow; row < lastRow; row++) {
              for (let column = firstColumn; column < lastColumn; column++) {
                const here = ((n * inHeight + row) * inWidth + column) * inChannels + c;
                if (values[here] > largest) {
                  largest = values[here];
                  place = here;
                }
              }
            }
            if (place >= 0) dx[place] += gradients[at];
          }
        }
      }
    }
  });
}

/** A new tensor of the wasm backend, which `fill` writes in place: it is given the memory of the tensor. */
function filled(
  backend: BackendWasm,
  shape: number[],
  fill: (values: Float32Array) => void,
): tf.Tensor {
  const info = backend.makeOutput(shape, "float32");
  const values = backend.typedArrayFromHeap(info) as Float32Array;
  fill(values);
  return tf.engine().makeTensorFromTensorInfo(info);
}
