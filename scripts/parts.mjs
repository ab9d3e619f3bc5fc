// Where the bytes of an entry are: `node scripts/size.mjs --parts`. Each file of src/, the binaries' texts among them, with its
// bytes after minifying and with its share, which is by how much the gzipped bundle shrinks without them. Shares add up to
// a little less than the whole, since what two files say alike is missed in neither.

import { SourceMap } from "node:module";
import ts from "typescript";

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

const isPart = (node) => ts.isTemplateHead(node) || ts.isTemplateMiddleOrTemplateTail(node);

/** A string of this length is no message but a binary as text. */
const BINARY = 1000;

/** The code with nothing in its texts of several words and in its templates: what it would be without any messages. */
export function withoutMessages(code) {
  const file = ts.createSourceFile("bundle.js", code, ts.ScriptTarget.ES2022);
  let rest = "";
  let end = 0;
  const visit = (node) => {
    const isText = ts.isStringLiteralLike(node) && node.text.includes(" ");
    if ((isText || isPart(node)) && node.text.length < BINARY) {
      // One character begins a part of a template or a text, and `${` or one character ends it.
      const opens = [ts.SyntaxKind.TemplateHead, ts.SyntaxKind.TemplateMiddle].includes(node.kind);
      rest += code.slice(end, node.getStart(file) + 1);
      end = node.getEnd() - (opens ? 2 : 1);
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  return rest + code.slice(end);
}
