// Users minify the package together with their own code. What a minifier takes for dead has to be dead.

import ts from "typescript";
import { expect, test } from "vitest";
import { isOurs, program } from "./support/api.js";

/** Whether an expression does something besides having a value, whatever a minifier thinks of getters. */
const acts = (node: ts.Expression): boolean => {
  if (ts.isParenthesizedExpression(node) || ts.isVoidExpression(node)) return acts(node.expression);
  if (ts.isBinaryExpression(node)) {
    const { kind } = node.operatorToken;
    const assigns = kind >= ts.SyntaxKind.FirstAssignment && kind <= ts.SyntaxKind.LastAssignment;
    return assigns || acts(node.right);
  }
  return (
    ts.isCallExpression(node) ||
    ts.isAwaitExpression(node) ||
    ts.isYieldExpression(node) ||
    ts.isDeleteExpression(node) ||
    ts.isPostfixUnaryExpression(node) ||
    (ts.isPrefixUnaryExpression(node) && /^(\+\+|--)/.test(node.getText()))
  );
};

// Terser, by default, leaves out `?.layer` in `this.norm?.layer;`. Rollup's preset "smallest" leaves out all such reads.
test("no code of src/ reads a property only for what its getter does", () => {
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isExpressionStatement(node) && !acts(node.expression)) {
      found.push(`${node.getSourceFile().fileName.replace(/^.*\/src\//, "")}: ${node.getText()}`);
    }
    ts.forEachChild(node, visit);
  };
  const ours = program.getSourceFiles().filter(isOurs);
  expect(ours.length).toBeGreaterThan(100);
  ours.forEach(visit);
  expect(found).toEqual([]);
});
