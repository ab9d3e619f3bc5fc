// The site as VitePress builds it. tools/build.ts calls it, after it has written the pages.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type DefaultTheme, defineConfigWithTheme } from "vitepress";
import { extend, slugify } from "../tools/markdown.js";
import { PAGES, pageOf, ROOT } from "../tools/paths.js";
import { referenceSidebars } from "../tools/reference.js";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const dist = (name: string): string => here(`../../dist/${name}.js`);
const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));

/** The guides, in the chapters and the order of docs/README.md. */
function guides(): DefaultTheme.SidebarItem[] {
  const list = readFileSync(join(ROOT, "docs/README.md"), "utf8").split("\n## ")[1]!;
  return list
    .split(/\n\n(?=[^\n-]+:\n)/)
    .slice(1)
    .map((chapter) => ({
      text: chapter.split(":")[0]!,
      items: [...chapter.matchAll(/^- \[([^\]]+)\]\((guides\/\S+\.md)\)/gm)].map(
        ([, text, path]) => ({ text: text!, link: `/${pageOf(`docs/${path}`)}` }),
      ),
    }));
}

const inside: DefaultTheme.SidebarItem[] = [
  { text: "Contributing", link: "/inside/contributing" },
  { text: "Architecture", link: "/inside/architecture" },
  { text: "Constants chosen by measurement", link: "/inside/tuning" },
  { text: "The recorded benchmark", link: "/inside/benchmark" },
  { text: "The record of runtimes", link: "/guides/places-record" },
];

const chapters = [...guides(), { text: "For those who change the package", items: inside }];

/** What the theme is told besides VitePress' own options: the version of the package. */
interface Options extends DefaultTheme.Config {
  readonly version: string;
}

export default defineConfigWithTheme<Options>({
  srcDir: PAGES,
  base: process.env.SITE_BASE ?? "/",
  outDir: process.env.SITE_OUT ?? here("../../build/site"),
  lang: "en",
  title: "batchnorm-wasm",
  titleTemplate: ":title · batchnorm-wasm",
  description: "Batch normalization for JavaScript on WebAssembly SIMD kernels",
  // The playground follows the system, and lies in a frame: so all pages do.
  appearance: "force-auto",
  router: { prefetchLinks: false },
  head: [
    [
      "link",
      {
        rel: "icon",
        href: "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Cpath d='M3 26C10 26 12 6 16 6s6 20 13 20' fill='none' stroke='%232b62c4' stroke-width='4' stroke-linecap='round'/%3E%3C/svg%3E",
      },
    ],
  ],
  markdown: {
    anchor: { slugify },
    toc: { slugify },
    headers: { slugify },
    theme: { light: "github-light-high-contrast", dark: "github-dark-high-contrast" },
    languageAlias: { http: "yaml" },
    config: extend,
  },
  themeConfig: {
    version,
    nav: [
      { text: "Guides", link: "/guides/first-steps", activeMatch: "^/guides/(?!places)" },
      { text: "API", link: "/api/", activeMatch: "^/api/" },
      { text: "How it works", link: "/how-it-works" },
      { text: "Playground", link: "/playground" },
      { text: "Measure it here", link: "/measure" },
      { text: "Where it runs", link: "/guides/places" },
    ],
    sidebar: {
      "/guides/": chapters,
      "/inside/": chapters,
      ...referenceSidebars(),
    },
    outline: { level: [2, 3], label: "On this page" },
    search: { provider: "local" },
    externalLinkIcon: false,
    footer: { message: `batchnorm-wasm ${version}, MIT licence` },
  },
  vite: {
    resolve: {
      alias: [
        { find: /^batchnorm-wasm$/, replacement: dist("index") },
        { find: /^batchnorm-wasm\/([\w-]+)$/, replacement: here("../../dist/$1.js") },
      ],
      // The package's entries for TensorFlow.js, which lie outside of this folder, take the copy that lies in it.
      dedupe: ["@tensorflow/tfjs-core", "@tensorflow/tfjs-layers"],
    },
    worker: { format: "es" },
    // The benchmark's loop in JavaScript says which V8 it ran on, which pages do not know.
    define: { "process.versions.v8": '""' },
    build: { target: ["chrome114", "firefox114", "safari16.4"], chunkSizeWarningLimit: 2000 },
    server: { fs: { allow: [ROOT] } },
  },
});
