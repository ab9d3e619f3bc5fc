// Where the files of the site lie, before it is built and after.

import { fileURLToPath } from "node:url";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** The root of the repository. */
export const ROOT = here("../../");
/** This package. */
export const SITE = here("../");
/** The Markdown that VitePress reads. The build writes it. */
export const PAGES = here("../.pages/");

/** The address of a file of the repository on the site, for those files that are pages: without `.md`. */
const FOLDERS: readonly (readonly [RegExp, string])[] = [
  [/^docs\/guides\/(.+)\.md$/, "guides/$1"],
  [/^docs\/(tuning|architecture)\.md$/, "inside/$1"],
  [/^CONTRIBUTING\.md$/, "inside/contributing"],
  [/^tests\/runtimes\/results\.md$/, "guides/places-record"],
  [/^bench\/results\/report\.md$/, "inside/benchmark"],
];

/** The page that a file of the repository is on the site, or undefined if it is none. */
export function pageOf(file: string): string | undefined {
  const found = FOLDERS.find(([pattern]) => pattern.test(file));
  return found && file.replace(...found);
}

/** The address of a picture of the repository on the site. */
export const addressOfPicture = (file: string): string => `/pictures/${file.replaceAll("/", "-")}`;
