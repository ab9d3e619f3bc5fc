/** Grey pictures for the report: an 8-bit BMP as a data URI (BITMAPINFOHEADER, bottom row first). */

/**
 * Digits side by side.
 *
 * @param digits 28 × 28 grey values each, 0 = paper, 255 = ink
 */
export function strip(digits: readonly Uint8Array[], side = 28): string {
  const width = digits.length * side; // a multiple of 4, as rows of a BMP are
  const colours = 4 * 256;
  const header = 54 + colours;
  const bytes = new Uint8Array(header + width * side);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 0x424d); // "BM"
  view.setUint32(2, bytes.length, true);
  view.setUint32(10, header, true);
  view.setUint32(14, 40, true);
  view.setInt32(18, width, true);
  view.setInt32(22, side, true);
  view.setUint16(26, 1, true);
  view.setUint16(28, 8, true);
  for (let i = 0; i < 256; i++) bytes.fill(255 - i, 54 + 4 * i, 57 + 4 * i);
  digits.forEach((grey, k) => {
    for (let row = 0; row < side; row++) {
      const line = grey.subarray(row * side, (row + 1) * side);
      bytes.set(line, header + (side - 1 - row) * width + k * side);
    }
  });
  return `data:image/bmp;base64,${Buffer.from(bytes).toString("base64")}`;
}
