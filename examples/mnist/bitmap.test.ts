import { expect, it } from "vitest";
import { strip } from "./bitmap.js";

it("a strip is an 8-bit BMP, ink dark, digits side by side, bottom row first", () => {
  const digit = (grey: number) => new Uint8Array(16).fill(grey, 0, 4); // only the top row has ink
  const bytes = Buffer.from(strip([digit(255), digit(128)], 4).split(",")[1], "base64");
  expect(bytes.toString("latin1", 0, 2)).toBe("BM");
  expect(bytes.readUInt32LE(2)).toBe(bytes.length);
  expect([bytes.readInt32LE(18), bytes.readInt32LE(22), bytes.readUInt16LE(28)]).toEqual([8, 4, 8]);
  const pixels = [...bytes.subarray(bytes.readUInt32LE(10))];
  expect(pixels).toEqual([...Array(24).fill(0), 255, 255, 255, 255, 128, 128, 128, 128]);
  const colour = (index: number) => [...bytes.subarray(54 + 4 * index, 57 + 4 * index)];
  expect([colour(0), colour(255)]).toEqual([
    [255, 255, 255],
    [0, 0, 0],
  ]);
});
