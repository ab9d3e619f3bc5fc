/**
 * Convolutions that train on TensorFlow.js' wasm backend. It has no gradient with respect to the filter of a
 * convolution (https://github.com/tensorflow/tfjs/issues/8474), so that no convolutional network trains there. Two more
 * gradients it has, but in loops that take most of a training step.
 *
 * - `Conv2DBackpropFilter`, which is missing: what the taps of the filter saw, as a matrix, times dy.
 * - `Conv2DBackpropInput`: dy convolved with the filter turned by 180°, which is a convolution, and fast.
 * - `MaxPoolGrad`: dy goes to the first of the largest values in its window, as on the cpu backend.
 *
 * The first two are equation 9.11 and what follows it in Goodfellow, Bengio & Courville, "Deep Learning" (2016),
 * section 9.5. Axes are NHWC: examples, height, width, channels.
 */

import type { BackendWasm } from "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";

type Image = tf.Tensor4D;
type Pad = Parameters<typeof tf.conv2d>[3];

/** How a convolution or a pool lies on its input. */
type Window = tf.backend_util.Conv2DInfo;

/** Values of the matrix of what the taps saw: 4 MiB. Larger mini-batches are taken in parts of some examples. */
const MOST_VALUES = 2 ** 20;

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

/** dW [kH, kW, in, out] = Σ over all positions of what a tap saw [in] times dy [out]. */
function filterGradient({ inputs, attrs, backend }: Call): tf.Tensor {
  const { strides, pad, dimRoundingMode, filterShape } =
    attrs as unknown as tf.Conv2DBackpropFilterAttrs;
  const [x, dy] = [inputs.x as Image, inputs.dy as Image];
  const window = tf.backend_util.computeConv2DInfo(
    x.shape,
    filterShape,
    strides,
    1,
    pad,
    dimRoundingMode,
  );
  const lying = lyingOf(window);
  const taps = window.filterHeight * window.filterWidth * window.inChannels;
  const most = Math.max(1, Math.floor(MOST_VALUES / (taps * lying.plane)));
  return tf.tidy(() => {
    let sum: tf.Tensor | undefined;
    for (let first = 0; first < window.batchSize; first += most) {
      const part = { ...lying, first, count: Math.min(most, window.batchSize - first) };
      const wasm = backend as BackendWasm;
      const product = tf.matMul(seen(wasm, x, window, part), spread(wasm, dy, window, part));
      sum = sum === undefined ? product : tf.add(sum, product);
    }
    return tf.reshape(sum as tf.Tensor, filterShape);
  });
}

/** How padded images lie one behind the other, row after row. */
interface Lying {
  /** The width of a padded image, and how many values it has. */
  readonly width: number;
  readonly plane: number;
  /** How far the last tap of a filter is from its first one. */
  readonly reach: number;
}

/** Some examples of a mini-batch. */
interface Part extends Lying {
  readonly first: number;
  readonly count: number;
}

function lyingOf({ inHeight, inWidth, filterHeight, filterWidth, padInfo }: Window): Lying {
  const width = inWidth + padInfo.left + padInfo.right;
  const plane = width * (inHeight + padInfo.top + padInfo.bottom);
  return { width, plane, reach: (filterHeight - 1) * width + filterWidth - 1 };
}

/**
 * What each tap saw of each channel, [kH·kW·in, positions]. A tap is always equally far from the first one, so its row
 * is that of the first one, moved. There is a row for every position, those of outputs and all others.
 */
function seen(backend: BackendWasm, x: Image, window: Window, part: Part): tf.Tensor2D {
  const { filterHeight, filterWidth, inChannels, inHeight, inWidth } = window;
  const { width, plane, reach, first, count } = part;
  const { top, left } = window.padInfo;
  const length = count * plane - reach;
  const channel = new Float32Array(count * plane); // the padding stays 0
  return filled(backend, [filterHeight * filterWidth * inChannels, length], (to) => {
    const from = backend.typedArrayFromHeap(x);
    for (let c = 0; c < inChannels; c++) {
      for (let n = 0; n < count; n++) {
        for (let row = 0; row < inHeight; row++) {
          const at = n * plane + (row + top) * width + left;
          const base = ((first + n) * inHeight + row) * inWidth * inChannels + c;
          for (let i = 0; i < inWidth; i++) channel[at + i] = from[base + i * inChannels];
        }
      }
      for (let i = 0; i < filterHeight; i++) {
        for (let j = 0; j < filterWidth; j++) {
          const offset = i * width + j;
          const row = (i * filterWidth + j) * inChannels + c;
          to.set(channel.subarray(offset, offset + length), row * length);
        }
      }
    }
  }) as tf.Tensor2D;
}

/** dy [positions, out] at the positions of outputs, which are where the first tap was; 0 at all others. */
function spread(backend: BackendWasm, dy: Image, window: Window, part: Part): tf.Tensor2D {
  const { outHeight, outWidth, outChannels, strideHeight, strideWidth } = window;
  const { width, plane, reach, first, count } = part;
  return filled(backend, [count * plane - reach, outChannels], (to) => {
    const from = backend.typedArrayFromHeap(dy) as Float32Array;
    to.fill(0);
    // A row of outputs lies together, unless there are strides between them.
    const run = strideWidth === 1 ? outWidth : 1;
    for (let n = 0; n < count; n++) {
      for (let h = 0; h < outHeight; h++) {
        for (let w = 0; w < outWidth; w += run) {
          const base = (((first + n) * outHeight + h) * outWidth + w) * outChannels;
          const at = n * plane + h * strideHeight * width + w * strideWidth;
          to.set(from.subarray(base, base + run * outChannels), at * outChannels);
        }
      }
    }
  }) as tf.Tensor2D;
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
  const { outHeight, outWidth, inChannels, batchSize } = window;
  const wasm = backend as BackendWasm;
  return filled(wasm, x.shape, (dx) => {
    const values = wasm.typedArrayFromHeap(x) as Float32Array;
    const gradients = wasm.typedArrayFromHeap(dy);
    dx.fill(0);
    const largest = new Float32Array(inChannels);
    const places = new Int32Array(inChannels);
    let at = 0;
    for (let n = 0; n < batchSize; n++) {
      for (let h = 0; h < outHeight; h++) {
        for (let w = 0; w < outWidth; w++, at += inChannels) {
          findLargest(values, window, n, h, w, largest, places);
          for (let c = 0; c < inChannels; c++) {
            if (places[c] >= 0) dx[places[c]] += gradients[at + c];
          }
        }
      }
    }
  });
}

/**
 * Writes where the first largest value of each channel is, in the window of the output at row h and column w of the n-th
 * image; -1 where the window has none. `largest` is room for these values.
 */
function findLargest(
  values: Float32Array,
  window: tf.backend_util.Conv2DInfo,
  n: number,
  h: number,
  w: number,
  largest: Float32Array,
  places: Int32Array,
): void {
  const { inHeight, inWidth, inChannels, filterHeight, filterWidth, padInfo } = window;
  const top = h * window.strideHeight - padInfo.top;
  const left = w * window.strideWidth - padInfo.left;
  const lastRow = Math.min(inHeight, top + filterHeight);
  const lastColumn = Math.min(inWidth, left + filterWidth);
  largest.fill(Number.NEGATIVE_INFINITY);
  places.fill(-1);
  for (let row = Math.max(0, top); row < lastRow; row++) {
    for (let column = Math.max(0, left); column < lastColumn; column++) {
      const here = ((n * inHeight + row) * inWidth + column) * inChannels;
      for (let c = 0; c < inChannels; c++) {
        if (values[here + c] <= largest[c]) continue;
        largest[c] = values[here + c];
        places[c] = here + c;
      }
    }
  }
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
