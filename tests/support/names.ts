// Which names of properties something besides the code of src/ may know. For everything else the build may choose
// shorter ones (scripts/internal-names.mjs). Whatever the TypeScript compiler cannot tell counts as known.

import ts from "typescript";
import { at, checker, exported, isInternal, isOurs, program } from "./api.js";

const sources = program.getSourceFiles().filter(isOurs);

/** Calls `look` with every node of src/. */
function everywhere(look: (node: ts.Node) => void): void {
  const visit = (node: ts.Node): void => {
    look(node);
    ts.forEachChild(node, visit);
  };
  sources.forEach(visit);
}

/** Whether a property is of ours, and neither private nor internal. */
const isPublic = (property: ts.Declaration): boolean =>
  isOurs(property) &&
  !isInternal(property) &&
  !(ts.isClassElement(property) && property.name && ts.isPrivateIdentifier(property.name)) &&
  !(ts.getCombinedModifierFlags(property) & ts.ModifierFlags.NonPublicAccessibilityModifier);

const partsOf = (type: ts.Type): ts.Type[] => (type.isUnionOrIntersection() ? type.types : [type]);

/** Whether a value of this type may have properties that the type does not name. */
const isOpen = (type: ts.Type): boolean =>
  (type.flags & (ts.TypeFlags.Any | ts.TypeFlags.Unknown | ts.TypeFlags.NonPrimitive)) !== 0 ||
  type.getStringIndexType() !== undefined;

/** The names of all properties that src/ declares or writes, but for the keys of tables that are looked up by string. */
export function properties(): Set<string> {
  const names = new Set<string>();
  everywhere((node) => {
    const element = ts.isObjectLiteralElement(node);
    if (!ts.isClassElement(node) && !ts.isTypeElement(node) && !element) return;
    const table = element && checker.getContextualType(node.parent as ts.ObjectLiteralExpression);
    if (table && partsOf(table).some(isOpen)) return;
    if (node.name !== undefined) names.add(node.name.getText());
  });
  return names;
}

/** The names of the members of all enums. */
export function enumMembers(): Set<string> {
  const names = new Set<string>();
  everywhere((node) => {
    if (ts.isEnumMember(node)) names.add(node.name.getText());
  });
  return names;
}

/** The types of which an identifier names a property: none if it is no property's name. */
function ownersAt(node: ts.Identifier): ts.Type[] {
  const { parent } = node;
  if (ts.isPropertyAccessExpression(parent) && parent.name === node) {
    return partsOf(checker.getTypeAtLocation(parent.expression));
  }
  if (ts.isBindingElement(parent) && (parent.propertyName ?? parent.name) === node) {
    const pattern = parent.parent;
    return ts.isObjectBindingPattern(pattern) ? partsOf(checker.getTypeAtLocation(pattern)) : [];
  }
  if (ts.isObjectLiteralElement(parent) && parent.name === node) {
    const literal = parent.parent as ts.ObjectLiteralExpression;
    return partsOf(checker.getContextualType(literal) ?? checker.getTypeAtLocation(literal));
  }
  if (ts.isClassElement(parent) && parent.name === node) {
    const { heritageClauses = [] } = parent.parent as ts.ClassLikeDeclaration;
    return heritageClauses.flatMap(({ types }) =>
      types.map((each) => checker.getTypeAtLocation(each)),
    );
  }
  return [];
}

/** Whether a string may be the key of a property: no type is, and no string that is compared with another. */
const mayBeKey = ({ parent }: ts.StringLiteralLike): boolean =>
  !ts.isLiteralTypeNode(parent) &&
  !(ts.isBinaryExpression(parent) && /^[!=]==$/.test(parent.operatorToken.getText()));

/** Functions that only look at what kind of value they are given. */
const LOOKS = /^(describe|is[A-Z]\w*|(Array|ArrayBuffer|Number)\.is\w+)$/;

/** Functions that look at the names of an object's properties, or send the object to those who do. */
const REVEALS = /^(Object|JSON|Reflect)\.\w+$|^structuredClone$|\bpostMessage$/;

/** Whether an expression is taken apart where it stands: the compiler expects `any` of the parts of a pattern. */
const isTakenApart = ({ parent }: ts.Node): boolean =>
  ts.isArrayLiteralExpression(parent) || ts.isBinaryExpression(parent)
    ? isTakenApart(parent)
    : ts.isVariableDeclaration(parent) && parent.type === undefined;

/** Why and where an expression gives an object away, or takes one, whose type does not say who else knows it. */
function givenAway(node: ts.Node): [type: ts.Type, why: string] | null {
  if (ts.isAsExpression(node) && !ts.isConstTypeReference(node.type)) {
    return [checker.getTypeAtLocation(node), "is of a type that is asserted"];
  }
  if (ts.isTypePredicateNode(node) && node.type !== undefined) {
    return [checker.getTypeAtLocation(node.type), "is of a type that is asserted"];
  }
  // What a call is told that it returns, as `builtin<{ … }>("node:os")`.
  if (ts.isTypeLiteralNode(node) && ts.isCallExpression(node.parent)) {
    return [checker.getTypeAtLocation(node), "is of a type that is asserted"];
  }
  if (ts.isForInStatement(node))
    return [checker.getTypeAtLocation(node.expression), "is looked up"];
  if (!ts.isExpression(node)) return null;
  const { parent } = node;
  if (ts.isCallExpression(parent) && parent.expression !== node) {
    const callee = parent.expression.getText();
    if (LOOKS.test(callee)) return null;
    if (REVEALS.test(callee)) return [checker.getTypeAtLocation(node), "is looked up"];
  }
  if (isTakenApart(node)) return null;
  const expected = checker.getContextualType(node);
  if (expected === undefined) return null;
  const own = checker.getTypeAtLocation(node);
  if (partsOf(expected).some(isOpen)) return [own, "goes where its type is forgotten"];
  return own.flags & ts.TypeFlags.Any ? [expected, "comes from where it has no type"] : null;
}

/**
 * The names of properties that something besides src/ may know, each with the reasons: those that users can reach,
 * through results and arguments too; those of the platform and of packages; those in strings, which may be keys;
 * and those of values that come from where they have no type, as parsed JSON does, or go there.
 */
export function knownOutside(): Map<string, string[]> {
  const found = new Map<string, string[]>();
  const say = (name: string, why: string, node?: ts.Node): void => {
    let where = "";
    if (node !== undefined) {
      const source = node.getSourceFile();
      const { line } = source.getLineAndCharacterOfPosition(node.getStart());
      where = `: ${source.fileName.slice(at("").length)}:${line + 1}`;
    }
    found.set(name, [...(found.get(name) ?? []), `${name} ${why}${where}`]);
  };

  const seen = new Set<ts.Type>();
  /** Says all properties of a type, and those of the types of its properties, results and arguments. */
  const follow = (type: ts.Type, why: string, node?: ts.Node): void => {
    if (seen.has(type)) return;
    seen.add(type);
    const within = [...partsOf(type), ...checker.getTypeArguments(type as ts.TypeReference)];
    for (const each of within) follow(each, why, node);
    for (const signature of [...type.getCallSignatures(), ...type.getConstructSignatures()]) {
      if (signature.declaration !== undefined && isInternal(signature.declaration)) continue;
      for (const each of signature.parameters) follow(checker.getTypeOfSymbol(each), why, node);
      follow(signature.getReturnType(), why, node);
    }
    for (const property of checker.getPropertiesOfType(type)) {
      if (!property.declarations?.some(isPublic)) continue;
      say(property.name, why, node);
      follow(checker.getTypeOfSymbol(property), why, node);
    }
  };

  for (const [, , symbol] of exported()) {
    follow(checker.getDeclaredTypeOfSymbol(symbol), "is public");
    follow(checker.getTypeOfSymbol(symbol), "is public");
  }
  everywhere((node) => {
    if (ts.isIdentifier(node)) {
      for (const owner of ownersAt(node)) {
        const property = checker.getPropertyOfType(checker.getApparentType(owner), node.text);
        if (property?.declarations?.some((each) => !isOurs(each))) {
          say(node.text, "is of the platform or a package", node);
        }
        if (property === undefined && isOpen(owner)) {
          say(node.text, "is of a value without a type", node);
        }
      }
    }
    if (ts.isStringLiteralLike(node) && mayBeKey(node)) say(node.text, "is a string", node);
    const given = givenAway(node);
    if (given !== null) follow(...given, node);
  });
  return found;
}
