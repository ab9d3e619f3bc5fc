/**
 * Takes the README's picture of the page after a training, with a Chromium that is on this machine.
 *
 *   npm run picture --prefix examples/convnet
 */

import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { launch } from "puppeteer-core";
import { findProgram, PROGRAMS } from "../../mnist/programs.js";
import { host } from "../../playground/tests/host.js";

const PICTURE = fileURLToPath(new URL("../page.png", import.meta.url));

const executablePath = findProgram("chromium");
if (executablePath === undefined) throw new Error(PROGRAMS.chromium.missing);
const site = await host(fileURLToPath(new URL("../out/page/", import.meta.url)));
const browser = await launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const page = await browser.newPage();
  await page.setViewport({ width: 760, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
  await page.goto(site.url, { waitUntil: "load" });
  await page.waitForSelector("[data-state=ready]");
  await page.click("button");
  await page.waitForSelector("[data-state=trained]", { timeout: 120_000 });
  await page.evaluate(() => (document.activeElement as HTMLElement | null)?.blur());
  await page.screenshot({ path: PICTURE, fullPage: true });
} finally {
  await browser.close();
  await site.close();
}
console.log(`${PICTURE}: ${Math.round(statSync(PICTURE).size / 1024)} KB`);
