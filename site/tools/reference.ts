// Writes the API reference as Markdown, from the doc comments of all entries, with the options of `npm run docs` where
// they apply.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Application, Converter, ReflectionKind, TSConfigReader } from "typedoc";
import { ENTRIES, nameModules, SHOWN } from "../../scripts/entries.mjs";
import { PAGES, ROOT } from "./paths.js";

/** Writes .pages/api, and its sidebar. */
export async function writeReference(): Promise<void> {
  const options = {
    name: "API reference",
    plugin: ["typedoc-plugin-markdown", "typedoc-vitepress-theme"],
    entryPoints: ENTRIES.map((entry: string) => join(ROOT, `src/${entry}.ts`)),
    tsconfig: join(ROOT, "tsconfig.build.json"),
    out: join(PAGES, "api"),
    docsRoot: PAGES,
    readme: "none",
    ...SHOWN,
    hidePageHeader: true,
    hideBreadcrumbs: false,
    useCodeBlocks: true,
    expandObjects: true,
    parametersFormat: "table",
    typeDeclarationFormat: "table",
    interfacePropertiesFormat: "table",
    propertyMembersFormat: "table",
    tableColumnSettings: { hideDefaults: true },
    logLevel: "Warn",
  };
  const app = await Application.bootstrapWithPlugins(
    options as Parameters<typeof Application.bootstrapWithPlugins>[0],
    [new TSConfigReader()],
  );
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    nameModules(project.getChildrenByKind(ReflectionKind.Module));
  });
  const project = await app.convert();
  if (!project || app.logger.hasErrors()) throw new Error("typedoc: see above.");
  await app.generateOutputs(project);
  if (app.logger.hasErrors() || app.logger.hasWarnings()) throw new Error("typedoc: see above.");
}

/** An entry of a sidebar of VitePress, as typedoc writes it. */
interface Item {
  text: string;
  link?: string;
  items?: Item[];
}

/**
 * The sidebars of the reference, by the addresses below which each stands: all entries of the package, which typedoc puts
 * into each other, as one list, and below it what the entry at hand exports.
 */
export function referenceSidebars(): Record<string, Item[]> {
  const [main, ...rest]: Item[] = JSON.parse(
    readFileSync(join(PAGES, "api/typedoc-sidebar.json"), "utf8"),
  );
  if (main === undefined || rest.length > 0) throw new Error("typedoc: expected one tree.");
  const isEntry = ({ link }: Item): boolean => link?.endsWith("/") === true;
  const inMain = main.items ?? [];
  const entries = [
    { ...main, items: inMain.filter((item) => !isEntry(item)) },
    ...inMain.filter(isEntry).map((item) => ({ ...item, text: `${main.text}/${item.text}` })),
  ];
  const list: Item = {
    text: "API reference",
    link: "/api/",
    items: entries.map(({ text, link }) => ({ text, link: link! })),
  };
  const groupsOf = ({ items = [] }: Item): Item[] =>
    items.map(({ text, items: members = [] }) => ({ text, items: members }));
  return Object.fromEntries([
    ["/api/", [list]],
    ...entries.map((entry) => [entry.link!, [list, ...groupsOf(entry)]]),
  ]);
}
