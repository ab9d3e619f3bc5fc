// The API reference: `npm run docs` writes build/docs from the doc comments of every package entry,
// with the README as its first page and the guides beside it. Any warning fails it.

import { readFileSync } from "node:fs";
import { Converter, OptionDefaults, ReflectionKind } from "typedoc";
import { ENTRIES, nameModules, SHOWN } from "./entries.mjs";

const read = (path) => readFileSync(new URL(`../${path}`, import.meta.url), "utf8");
const { name } = JSON.parse(read("package.json"));

/** The guides in the order of docs/README.md. */
const guides = [...read("docs/README.md").matchAll(/\]\((guides\/\S+\.md)\)/g)].map(
  ([, path]) => `docs/${path}`,
);
/** The title of a Markdown file. */
const titleOf = (path) => /^# (.*)$/m.exec(read(path))[1];

/** Links to what is in a clone but not in the reference become plain words; pictures stay. */
function withoutLinksOut(parts = []) {
  for (const [i, part] of parts.entries()) {
    if (part.kind !== "relative-link") continue;
    if (!/^(\.\.\/)*(examples|bench|site|tests)\//.test(part.text)) continue;
    // "[words](", or, as code is a part of its own: "[", code, "](".
    const [open, code, middle, close] = [parts[i - 3], parts[i - 2], parts[i - 1], parts[i + 1]];
    const words = /(?<!!)\[([^[\]]*)\]\($/;
    if (words.test(middle.text)) middle.text = middle.text.replace(words, "$1");
    else if (middle.text === "](" && code.kind === "code") {
      open.text = open.text.replace(/\[$/, "");
      middle.text = "";
    } else continue;
    parts[i] = { kind: "text", text: "" };
    close.text = close.text.replace(")", "");
  }
}

/** Modules go by what users import, guides by their titles. */
function names({ converter }) {
  converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    nameModules(project.getChildrenByKind(ReflectionKind.Module));
    for (const document of project.documents ?? []) {
      document.name = titleOf(`docs/${document.name}.md`);
      withoutLinksOut(document.content);
    }
    withoutLinksOut(project.readme);
  });
}

export default {
  name,
  includeVersion: true,
  entryPoints: ENTRIES.map((entry) => `../src/${entry}.ts`),
  tsconfig: "../tsconfig.build.json",
  out: "../build/docs",
  readme: "../README.md",
  projectDocuments: ["docs/README.md", ...guides].map((path) => `../${path}`),
  plugin: [names],
  ...SHOWN,
  useFirstParagraphOfCommentAsSummary: true, // on the pages of modules
  navigation: { includeGroups: true },
  highlightLanguages: [...OptionDefaults.highlightLanguages, "diff", "http", "python"],
  searchInComments: true,
  searchInDocuments: true,
  treatWarningsAsErrors: true,
  treatValidationWarningsAsErrors: true,
  validation: {
    invalidLink: true,
    invalidPath: true,
    notDocumented: true,
    notExported: true,
    rewrittenLink: true,
    unusedMergeModuleWith: true,
  },
};
