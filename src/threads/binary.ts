// The kernels on a shared memory. assembly/ compiled for such a memory (`--enable threads --sharedMemory`) differs from
// the binaries of layers in the import of the memory alone, so the package does not carry them a second time.
// tests/threads/binary.test.ts compares them, byte by byte.

/** The last letter of "memory". No byte before that one is the same: only types lie there, and the word "env". */
const LETTER = 0x79;

/** The same binary, which imports nothing but a memory without a maximum, with an import of a shared memory. */
export function onSharedMemory(binary: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = [...binary];
  // The section of imports (WebAssembly 1.0, section 5.5.5) says how long it is, which takes one byte; then come how many
  // imports there are, the two words with their lengths, that it is a memory, and its limits, with which it ends: that there is
  // no maximum, and 0 pages. They become: shared with a maximum, 0 pages, at most 65536.
  const limits = bytes.indexOf(LETTER) + 2;
  bytes[limits - 14]! += 3;
  bytes.splice(limits, 2, 3, 0, 0x80, 0x80, 4);
  return new Uint8Array(bytes);
}
