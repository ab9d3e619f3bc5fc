// The kernels on a shared memory. assembly/ compiled for such a memory (`--enable threads --sharedMemory`) differs from
// the binary that all entries have in the import of the memory alone, so the package does not carry it a second time.
// tests/threads/binary.test.ts compares the two, byte by byte.

/** The section of imports (WebAssembly 1.0, section 5.5.5). */
const IMPORTS = 2;

/** The same binary, which imports nothing but a memory without a maximum, with an import of a shared memory. */
export function onSharedMemory(binary: Uint8Array): Uint8Array<ArrayBuffer> {
  let at = 8;
  while (binary[at] !== IMPORTS) {
    // The size of a section is a number in groups of seven bits.
    let size = 0;
    for (let shift = 0; ; shift += 7) {
      const group = binary[++at]!;
      size += (group & 127) << shift;
      if (group < 128) break;
    }
    at += size + 1;
  }
  // It ends with the limits of the memory: that there is no maximum, and 0 pages. They become: shared with a maximum, 0
  // pages, at most 65536.
  const size = binary[at + 1]!;
  const end = at + 2 + size;
  const limits = [3, 0, 0x80, 0x80, 4];
  return Uint8Array.of(
    ...binary.subarray(0, at + 1),
    size + 3,
    ...binary.subarray(at + 2, end - 2),
    ...limits,
    ...binary.subarray(end),
  );
}
