// Where the bytes of an entry are: `node scripts/size.mjs --parts`. Each file of src/, the binary's text among them, with its
// bytes after minifying and with its share, which is by how much the gzipped bundle shrinks without them. Shares add up to
// a little less than the whole, since what two files say alike is missed in neither.

import { SourceMap } from "node:module";

/** The files that a bundle with its source map is made of, largest share first. */
export function partsOf(code, map, gzipped) {
  const sources = new SourceMap(JSON.parse(map));
  const files = new Map();
  const owners = code.split("\n").flatMap((line, row) =>
    Array.from({ length: line.length + 1 }, (_, column) => {
      const { originalSource = "the bundle itself" } = sources.findEntry(row, column);
      const name = originalSource.replace(/^.*\bsrc\//, "");
      files.set(name, (files.get(name) ?? 0) + 1);
      return name;
    }),
  );
  const whole = gzipped(code);
  const without = (name) =>
    owners.reduce((rest, owner, i) => rest + (owner === name ? "" : code.charAt(i)), "");
  return [...files]
    .map(([name, bytes]) => ({ name, bytes, share: whole - gzipped(without(name)) }))
    .sort((a, b) => b.share - a.share);
}
