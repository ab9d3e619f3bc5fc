// Takes the memory of an array away, as handing it to a worker does.

export function transfer(array: ArrayBufferView): void {
  structuredClone(array, { transfer: [array.buffer as ArrayBuffer] });
}
