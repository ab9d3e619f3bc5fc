/**
 * Takes the README's picture of the report with a Chromium that is on this machine (Debian:
 * `apt-get install chromium`); CHROMIUM names another one. Not part of the demo.
 *
 *   npm run picture --prefix examples/mnist
 */

import { existsSync, statSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { chromium } from "playwright-core";
import { findProgram, PROGRAMS } from "./programs.js";

const REPORT = fileURLToPath(new URL("./out/report.html", import.meta.url));
const PICTURE = fileURLToPath(new URL("./report.png", import.meta.url));
/** The README shows it at about this width. */
const WIDTH = 760;

if (!existsSync(REPORT)) throw new Error("no report yet: run `npm run demo` first.");
const executablePath = findProgram("chromium");
if (executablePath === undefined) throw new Error(PROGRAMS.chromium.missing);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
try {
  const page = await browser.newPage({
    viewport: { width: WIDTH, height: 1000 },
    colorScheme: "light",
  });
  await page.goto(pathToFileURL(REPORT).href);
  // From the top to the end of the first table; the rest is for those who run the demo.
  const table = await page.locator("table").first().boundingBox();
  if (table === null) throw new Error("the report has no table.");
  const height = Math.ceil(table.y + table.height) + 16;
  const clip = { x: 0, y: 0, width: WIDTH, height };
  await page.screenshot({ path: PICTURE, fullPage: true, clip });
} finally {
  await browser.close();
}
console.log(`${PICTURE}: ${Math.round(statSync(PICTURE).size / 1024)} KB`);
