// How small could an entry be? `node scripts/size.mjs --parts` prints what is left of it without a single check, and with short
// names for all properties. Neither is of use to anybody: users need the one and write the other. But whoever looks for
// bytes sees what there is to find.

import { transform } from "esbuild";
import ts from "typescript";

const FILE = "bundle.js";

/** A bundle, with the compiler's knowledge of what each name in it refers to. */
function parsed(code) {
  const file = ts.createSourceFile(FILE, code, ts.ScriptTarget.ES2022, true);
  const options = { allowJs: true, noLib: true, noResolve: true, target: ts.ScriptTarget.ES2022 };
  const host = {
    ...ts.createCompilerHost(options),
    getSourceFile: (name) => (name === FILE ? file : undefined),
  };
  return { file, checker: ts.createProgram([FILE], options, host).getTypeChecker() };
}

/** Calls `look` with every node. */
function everywhere(node, look) {
  look(node);
  ts.forEachChild(node, (child) => everywhere(child, look));
}

/**
 * The code in which `visit` has replaced every node, parents first, by what it returns: `[]` stands for nothing, `inner()` for
 * the node itself with its parts visited.
 */
function rewritten(file, visit) {
  const { transformed } = ts.transform(file, [
    (context) => (root) => {
      const each = (node) => visit(node, () => ts.visitEachChild(node, each, context));
      return ts.visitNode(root, each);
    },
  ]);
  return ts.createPrinter({ removeComments: true }).printFile(transformed[0]);
}

/** Whether a statement can be left in another way than at its end and by an error. */
function leaves(node) {
  if (ts.isFunctionLike(node)) return false;
  if (ts.isReturnStatement(node) || ts.isBreakOrContinueStatement(node)) return true;
  return ts.forEachChild(node, leaves) ?? false;
}

/** Whether a statement always ends in an error. */
const fails = (node) =>
  node !== undefined &&
  (ts.isThrowStatement(node) ||
    (ts.isBlock(node) && node.statements.some(fails) && !leaves(node)) ||
    (ts.isIfStatement(node) && fails(node.thenStatement) && fails(node.elseStatement)));

/** The code without what throws, and without the conditions that decide on nothing else. */
const withoutThrows = (code) =>
  rewritten(parsed(code).file, (node, inner) => {
    // The block of a function or of a try has to stay; what fails in it goes by itself.
    if (fails(node) && !(ts.isBlock(node) && !ts.isBlock(node.parent))) return [];
    if (ts.isIfStatement(node) && fails(node.thenStatement)) return inner().elseStatement ?? [];
    if (ts.isTryStatement(node) && fails(node.catchClause?.block)) return inner().tryBlock;
    return inner();
  });

/** The function that a declaration gives a name to, if it does. */
function functionOf(node) {
  if (ts.isFunctionDeclaration(node)) return node;
  const { initializer } = node;
  return ts.isVariableDeclaration(node) && initializer && ts.isArrowFunction(initializer)
    ? initializer
    : undefined;
}

/** Whether a function at most returns a variable or a constant. */
function isIdle({ body }) {
  if (!ts.isBlock(body)) return ts.isIdentifier(body) || ts.isLiteralExpression(body);
  const [first, second] = body.statements;
  if (first === undefined) return true;
  return second === undefined && ts.isReturnStatement(first) && isIdle({ body: first.expression });
}

const isEmpty = (node) => node === undefined || (ts.isBlock(node) && node.statements.length === 0);

/** The code without the variables, arguments, calls, conditions and loops that have become useless. */
function withoutUnused(code) {
  const { file, checker } = parsed(code);
  const { factory } = ts;

  /** The identifiers that refer to each variable and function. */
  const uses = new Map();
  everywhere(file, (node) => {
    if (!ts.isIdentifier(node)) return;
    const { parent } = node;
    let symbol = checker.getSymbolAtLocation(node);
    if (ts.isShorthandPropertyAssignment(parent)) {
      symbol = checker.getShorthandAssignmentValueSymbol(parent);
    } else if (ts.isExportSpecifier(parent)) {
      symbol = checker.getExportSpecifierLocalTargetSymbol(parent);
    } else if (parent.name === node) return;
    uses.set(symbol, [...(uses.get(symbol) ?? []), node]);
  });
  const usesOf = ({ name }) => uses.get(checker.getSymbolAtLocation(name)) ?? [];
  const isUseless = (node) =>
    ts.isObjectBindingPattern(node.name)
      ? node.name.elements.length === 0
      : ts.isIdentifier(node.name) && usesOf(node).length === 0;

  /** Functions that need not be called for what they do. */
  const idle = new Set();
  /** Functions that are only ever called, and the places of arguments that they do not use; by their calls and themselves. */
  const useless = new Map();
  everywhere(file, (node) => {
    const own = functionOf(node);
    if (own === undefined) return;
    if (isIdle(own)) idle.add(checker.getSymbolAtLocation(node.name));
    const calls = usesOf(node).map((use) => ts.isCallExpression(use.parent) && use.parent);
    const isListed = (call, i) =>
      call.expression === usesOf(node)[i] && !call.arguments.some(ts.isSpreadElement);
    if (!calls.every(isListed) || own.parameters.some((each) => each.dotDotDotToken)) return;
    for (const each of [own, ...calls]) {
      useless.set(each, (_, i) => !own.parameters[i] || !isUseless(own.parameters[i]));
    }
  });

  const isUnusedVariable = (node) =>
    ts.isVariableDeclaration(node) && ts.isVariableStatement(node.parent.parent) && isUseless(node);
  const isUnusedPart = (node) =>
    ts.isBindingElement(node) &&
    !node.parent.elements.some((each) => ts.isOmittedExpression(each) || each.dotDotDotToken) &&
    ts.isObjectBindingPattern(node.parent) &&
    isUseless(node);

  return rewritten(file, (node, inner) => {
    if (isUnusedPart(node)) return [];
    if (ts.isVariableStatement(node)) {
      const { declarations } = node.declarationList;
      const [{ initializer }] = declarations;
      if (!declarations.every(isUnusedVariable)) return inner();
      // A method may do more than to return what nobody needs now: a kernel does.
      const isMethod =
        ts.isCallExpression(initializer ?? node) &&
        ts.isPropertyAccessExpression(initializer.expression);
      return isMethod ? factory.createExpressionStatement(initializer) : [];
    }
    const result = inner();
    if (ts.isExpressionStatement(node) && ts.isCallExpression(node.expression)) {
      return idle.has(checker.getSymbolAtLocation(node.expression.expression)) ? [] : result;
    }
    if (ts.isIterationStatement(result, false)) return isEmpty(result.statement) ? [] : result;
    if (ts.isIfStatement(result)) {
      return isEmpty(result.thenStatement) && isEmpty(result.elseStatement) ? [] : result;
    }
    const isNeeded = useless.get(node);
    if (isNeeded === undefined) return result;
    if (ts.isCallExpression(result)) {
      const { expression, arguments: given } = result;
      return factory.updateCallExpression(result, expression, undefined, given.filter(isNeeded));
    }
    const parameters = factory.createNodeArray(result.parameters.filter(isNeeded));
    return Object.assign(factory.cloneNode(result), { parameters });
  });
}

/** A bundle that is not minified yet, without any check, and without what only checks need. */
export function withoutChecks(code) {
  let rest = withoutThrows(code);
  for (let before = code; rest !== before; ) {
    before = rest;
    rest = withoutUnused(rest);
  }
  return rest;
}

const namesOf = (value) => (Object(value) === value ? Object.getOwnPropertyNames(value) : []);
/** The names of all properties of what JavaScript and WebAssembly have built in. */
const BUILT_IN = [globalThis, WebAssembly].flatMap((owner) =>
  namesOf(owner).flatMap((name) => [
    name,
    ...namesOf(owner[name]),
    ...namesOf(owner[name]?.prototype),
  ]),
);

/** A bundle, minified, in which all properties but the built-in ones have the shortest names, those that users write too. */
export async function withShortNames(code) {
  const reserveProps = new RegExp(`^(${BUILT_IN.filter((name) => /^\w+$/.test(name)).join("|")})$`);
  return (await transform(code, { minify: true, mangleProps: /./, reserveProps })).code;
}
