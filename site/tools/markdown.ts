// What the site changes in the Markdown of the repository, which is written for readers of a clone: links lead to
// pages of the site, links to what is no page become plain words, and examples get a frame in which they run.

import { posix } from "node:path";
import type { MarkdownRenderer } from "vitepress";
import { runsOf } from "./examples.js";
import { addressOfPicture, pageOf } from "./paths.js";

type Token = ReturnType<MarkdownRenderer["parse"]>[number];

/** The anchors of headings, as in a clone on the hosts that people read it on. */
export const slugify = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} -]/gu, "")
    .replaceAll(" ", "-");

const isRemote = (href: string): boolean => /^(\w+:|\/|#)/.test(href);

/** Leads the links of a line to pages of the site. `file` is where the line stands in the repository. */
function leadLinks(tokens: Token[], file: string): void {
  const open: boolean[] = [];
  for (const token of tokens) {
    if (token.type === "image") {
      const src = token.attrGet("src")!;
      if (!isRemote(src)) {
        token.attrSet("src", addressOfPicture(posix.join(posix.dirname(file), src)));
      }
    }
    if (token.type === "link_close") hide(token, open.pop() === false);
    if (token.type !== "link_open") continue;
    const href = token.attrGet("href")!;
    const [path, anchor] = href.split("#") as [string, string?];
    const page = isRemote(href) ? undefined : pageOf(posix.join(posix.dirname(file), path));
    open.push(isRemote(href) || page !== undefined);
    hide(token, !open.at(-1));
    if (page !== undefined) {
      token.attrSet("href", `/${page}.md${anchor === undefined ? "" : `#${anchor}`}`);
    }
  }
}

/** A token that writes nothing. */
function hide(token: Token, hidden: boolean): void {
  if (!hidden) return;
  token.type = "text";
  token.tag = "";
  token.nesting = 0;
  token.content = "";
}

/** The extensions of the Markdown renderer. */
export function extend(md: MarkdownRenderer): void {
  md.core.ruler.push("links_of_the_site", ({ tokens, env }) => {
    const file: string | undefined = env.frontmatter?.source;
    if (file === undefined) return;
    for (const { children } of tokens) if (children) leadLinks(children, file);
  });

  // A head of a table without words is no head to those who hear the page.
  md.core.ruler.push("empty_heads", ({ tokens }) => {
    for (const [i, token] of tokens.entries()) {
      if (token.type !== "th_open" || tokens[i + 1]?.content !== "") continue;
      token.tag = "td";
      tokens[i + 2]!.tag = "td";
    }
  });

  md.core.ruler.push("examples", ({ tokens, env, src }) => {
    if (!env.frontmatter?.examples && !/^docs\/guides\//.test(env.frontmatter?.source ?? ""))
      return;
    const runs = runsOf(src);
    const fences = tokens.filter(({ type }) => type === "fence");
    for (const [i, fence] of fences.entries()) fence.meta = { ...fence.meta, run: runs[i] };
  });

  const fence = md.renderer.rules.fence!;
  md.renderer.rules.fence = (tokens, i, ...rest) => {
    const html = fence(tokens, i, ...rest);
    const run = tokens[i]!.meta?.run;
    if (run === undefined) return html;
    return `<RunBlock data="${md.utils.escapeHtml(JSON.stringify(run))}">${html}</RunBlock>\n`;
  };
}
