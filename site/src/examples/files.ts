// `node:fs` as far as the guides use it, on files in memory.

export type Files = Map<string, Uint8Array>;

export function fileSystem(files: Files) {
  return {
    readFileSync(name: string, encoding?: "utf8"): Uint8Array | string {
      const bytes = files.get(name);
      if (bytes === undefined) throw new Error(`ENOENT: no such file, open '${name}'`);
      return encoding === undefined ? bytes.slice() : new TextDecoder().decode(bytes);
    },
    writeFileSync(name: string, content: Uint8Array | string): void {
      files.set(
        name,
        typeof content === "string" ? new TextEncoder().encode(content) : content.slice(),
      );
    },
  };
}
