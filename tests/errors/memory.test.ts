// MemoryError: kernel memory without room for a tensor, or a memory that the runtime does not give.

import { Kernels, MemoryError } from "batchnorm-wasm";
import { describe, expect, test, vi } from "vitest";
import { refuses } from "./rows.js";

describe("MemoryError", () => {
  refuses(MemoryError, "MEMORY", [
    {
      name: "a tensor beyond the memory",
      message:
        /^length: expected to fit into 1048576 bytes of kernel memory, of which \d+ are free, got 262144 values of 4 bytes; for more: the option memory$/,
      call: ({ kernels }) => kernels.alloc(262144),
    },
  ]);

  test("tensors stay as they were, and what fits is given", () => {
    const kernels = new Kernels({ memory: 1310720 });
    const view = kernels.alloc(50_000).fill(7);
    expect(() => kernels.alloc(60_000)).toThrow(MemoryError);
    expect(view.every((value) => value === 7)).toBe(true);
    expect(kernels.alloc(40_000).length).toBe(40_000);
  });

  test("a memory that the runtime does not give", () => {
    const memory = vi.spyOn(WebAssembly, "Memory").mockImplementation(
      class {
        constructor() {
          throw new RangeError("could not allocate memory");
        }
      } as never,
    );
    try {
      const create = () => new Kernels({ memory: 3 << 20 });
      expect(create).toThrow(MemoryError);
      expect(create).toThrow(
        /^memory: expected a size that this runtime can give \(ulimit -v: node --disable-wasm-trap-handler\), got 3145728 b/,
      );
    } finally {
      memory.mockRestore();
    }
  });
});
