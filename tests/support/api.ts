// Lists what the package exports, with the help of the TypeScript compiler: every function that users can call, its
// doc comment, and the errors that its code can throw.

import { fileURLToPath } from "node:url";
import ts from "typescript";
import { ENTRIES } from "../../scripts/entries.mjs";

const root = new URL("../..", import.meta.url);
export const at = (path: string): string => fileURLToPath(new URL(path, root));

const SOURCES = ENTRIES.map((entry) => `src/${entry}.ts`);

/** A function, constructor, method or getter that users can call. */
export interface Callable {
  /** For example `BatchNorm.train`, `calibrate` or `new Kernels`. */
  readonly name: string;
  readonly entry: string;
  readonly declaration: ts.SignatureDeclaration;
  /** The classes of errors that it, or a function that it calls, can throw. */
  readonly throws: ReadonlySet<string>;
}

/** A property of an exported interface or class that holds one value per channel or a tensor. */
export interface ArrayProperty {
  readonly name: string;
  readonly comment: string;
}

const { options } = ts.convertCompilerOptionsFromJson(
  ts.readConfigFile(at("tsconfig.json"), ts.sys.readFile).config.compilerOptions,
  at("."),
);
export const program = ts.createProgram(
  SOURCES.map((source) => at(source)),
  options,
);
export const checker = program.getTypeChecker();

export const isOurs = (node: ts.Node): boolean => {
  const { fileName } = node.getSourceFile();
  return fileName.startsWith(at("src/")) && !fileName.endsWith(".d.ts");
};
export const isInternal = (node: ts.Node): boolean =>
  ts.getJSDocTags(node).some(({ tagName }) => tagName.text === "internal");

/** The symbol that an import or a re-export stands for. */
const real = (symbol: ts.Symbol): ts.Symbol =>
  symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;

/** The functions of this package that code calls: by name, by reading a getter, or with `new`. */
function calledIn(body: ts.Node): ts.Declaration[] {
  const found: (ts.Declaration | undefined)[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node) || ts.isNewExpression(node)) {
      const declaration = checker.getResolvedSignature(node)?.declaration;
      found.push(declaration);
      // A class without a constructor of its own has that of its base class.
      if (declaration === undefined && ts.isNewExpression(node)) {
        found.push(...(checker.getSymbolAtLocation(node.expression)?.declarations ?? []));
      }
    }
    if (ts.isPropertyAccessExpression(node)) {
      found.push(
        ...(checker.getSymbolAtLocation(node.name)?.declarations ?? []).filter(ts.isGetAccessor),
      );
    }
    ts.forEachChild(node, visit);
  };
  visit(body);
  return found.filter((each) => each !== undefined && isOurs(each)) as ts.Declaration[];
}

/** The check of members that they are not used through a proxy. The comment of a class says what it throws. */
const isGuard = (node: ts.Node): boolean =>
  ts.isGetAccessor(node) &&
  node.name.getText() === "itself" &&
  node.getSourceFile().fileName === RAW;
const RAW = at("src/values/raw.ts");

/** The names of the classes of errors that this code, or the functions that it calls, can throw. */
function throwsOf(start: ts.Declaration): Set<string> {
  const errors = new Set<string>();
  const seen = new Set<ts.Node>();
  const follow = (declaration: ts.Declaration): void => {
    if (seen.has(declaration)) return;
    seen.add(declaration);
    const body = (declaration as { body?: ts.Node }).body;
    if (body === undefined || isGuard(declaration)) return;
    const visit = (node: ts.Node): void => {
      if (ts.isThrowStatement(node)) {
        const thrown = checker.getTypeAtLocation(node.expression).symbol?.name;
        if (thrown?.endsWith("Error")) errors.add(thrown);
      }
      ts.forEachChild(node, visit);
    };
    visit(body);
    calledIn(body).forEach(follow);
  };
  follow(start);
  return errors;
}

/** The members that users see: also those of base classes of this package, but no private or internal ones. */
function membersOf(type: ts.Type): ts.Declaration[] {
  return checker
    .getPropertiesOfType(type)
    .flatMap((property) => property.declarations ?? [])
    .filter((each) => isOurs(each) && !isInternal(each))
    .filter((each) => !ts.isPrivateIdentifier((each as ts.NamedDeclaration).name ?? each));
}

/** Every symbol that an entry exports, each once, with its name and the entry. */
export function exported(): [name: string, entry: string, symbol: ts.Symbol][] {
  const found = new Map<ts.Symbol, [string, string, ts.Symbol]>();
  for (const entry of SOURCES) {
    const file = checker.getSymbolAtLocation(program.getSourceFile(at(entry))!)!;
    for (const symbol of checker.getExportsOfModule(file)) {
      const itself = real(symbol);
      if (!found.has(itself)) found.set(itself, [symbol.name, entry, itself]);
    }
  }
  return [...found.values()];
}

/** Every function that an entry exports, and every method of its classes. */
export function callables(): Callable[] {
  const found = new Map<ts.Declaration, Callable>();
  for (const [name, entry, symbol] of exported()) {
    const add = (name: string, declaration: ts.Declaration): void => {
      if (!ts.isFunctionLike(declaration) || !("body" in declaration)) return;
      if (ts.isSetAccessor(declaration) || found.has(declaration)) return;
      found.set(declaration, { name, entry, declaration, throws: throwsOf(declaration) });
    };
    for (const declaration of symbol.declarations ?? []) {
      if (ts.isFunctionDeclaration(declaration)) add(name, declaration);
      if (!ts.isClassDeclaration(declaration)) continue;
      for (const member of [
        ...membersOf(checker.getDeclaredTypeOfSymbol(symbol)),
        ...membersOf(checker.getTypeOfSymbol(symbol)),
      ]) {
        const own = (member as ts.NamedDeclaration).name;
        if (own !== undefined) add(`${name}.${own.getText()}`, member);
      }
      for (const member of declaration.members.filter(ts.isConstructorDeclaration)) {
        if (!isInternal(member)) add(`new ${name}`, member);
      }
    }
  }
  return [...found.values()];
}

/** The comment of every exported class whose members check that they are not used through a proxy, by its name. */
export function guardedClasses(): [name: string, comment: string][] {
  return exported().flatMap(([name, , symbol]) => {
    const declaration = symbol.declarations?.find(ts.isClassDeclaration);
    if (declaration === undefined) return [];
    const inherited = membersOf(checker.getDeclaredTypeOfSymbol(symbol));
    const members = [...inherited, ...declaration.members];
    if (!members.some((each) => calledIn(each).some(isGuard))) return [];
    const [comment] = ts.getJSDocCommentsAndTags(declaration);
    return [[name, comment?.getText() ?? ""]];
  });
}

/** Every property of exported interfaces and classes that is an array of numbers. */
export function arrays(): ArrayProperty[] {
  const found: ArrayProperty[] = [];
  for (const [name, , symbol] of exported()) {
    for (const member of membersOf(checker.getDeclaredTypeOfSymbol(symbol))) {
      const property = ts.isPropertySignature(member) || ts.isPropertyDeclaration(member);
      if (!property && !ts.isGetAccessor(member)) continue;
      // If the type is an object written in place, its members have comments of their own.
      if (member.type !== undefined && ts.isTypeLiteralNode(member.type)) continue;
      if (!/Float(32|64)Array|JsonNumber\[\]|Variable</.test(member.type?.getText() ?? ""))
        continue;
      const [doc] = ts.getJSDocCommentsAndTags(member);
      found.push({ name: `${name}.${member.name.getText()}`, comment: doc?.getText() ?? "" });
    }
  }
  return found;
}

/** A program in a doc comment: an `@example` or a block of TypeScript. */
export interface Example {
  /** Its file and line, for example `batch-norm.ts:134`. */
  readonly name: string;
  readonly file: string;
  readonly code: string;
}

/** All examples in the doc comments of the sources. */
export function examples(): Example[] {
  return program
    .getSourceFiles()
    .filter(isOurs)
    .flatMap((source) => {
      const file = source.fileName.slice(at("src/").length);
      return [...source.text.matchAll(/\/\*\*.*?\*\//gs)].flatMap((comment) => {
        const text = comment[0].replace(/^ *(\/\*\*| \*\/?) ?/gm, "");
        const tagged = text.split(/^@example\n/m)[1]?.replace(/^@.*/ms, "");
        const fenced = /^```ts\n(.*?)^```$/ms.exec(text)?.[1];
        const code = tagged ?? fenced;
        if (code === undefined) return [];
        const line = source.getLineAndCharacterOfPosition(comment.index).line + 1;
        return [{ name: `${file}:${line}`, file, code }];
      });
    });
}
