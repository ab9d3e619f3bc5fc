/**
 * Takes the README's picture of the report with a Chromium that is on this machine (Debian:
 * `apt-get install chromium`); CHROMIUM names another one. Not part of the demo.
 *
 *   npm run picture --prefix examples/mnist
 */

import { accessSync, constants, existsSync, statSync } from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const REPORT = fileURLToPath(new URL("./out/report.html", import.meta.url));
const PICTURE = fileURLToPath(new URL("./report.png", import.meta.url));
/** The README shows it at about this width. */
const WIDTH = 760;

function findChromium(): string {
  const folders = (process.env.PATH ?? "").split(path.delimiter);
  const names = ["chromium", "chromium-browser", "google-chrome"];
  const candidates = folders.flatMap((folder) => names.map((name) => path.join(folder, name)));
  const found = [process.env.CHROMIUM, ...candidates].find(
    (file) => file !== undefined && isExecutable(file),
  );
  if (found === undefined) {
    throw new Error(
      "no Chromium found: install the package chromium, or set CHROMIUM to its path.",
    );
  }
  return found;
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

if (!existsSync(REPORT)) throw new Error("no report yet: run `npm run demo` first.");
const browser = await chromium.launch({ executablePath: findChromium(), args: ["--no-sandbox"] });
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
