/**
 * Takes the README's picture of the page, a drawn digit answered both ways, with a Chromium that is
 * on this machine.
 *
 *   npm run picture --prefix examples/playground
 */

import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { DRAWN } from "../tests/drawn.js";
import { host } from "../tests/host.js";
import { Playground, start } from "../tests/page.js";

const PICTURE = fileURLToPath(new URL("../playground.png", import.meta.url));
/** Narrow enough that the text can be read at the width the README has for it. */
const WIDTH = 1000;
const DIGIT = 8;

const browser = await start("chromium");
if (typeof browser === "string") throw new Error(browser);
const site = await host();
try {
  const page = await browser.newPage();
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
  const playground = new Playground(page);
  await playground.open(site.url, { width: WIDTH, height: 1700 });
  await playground.ready();
  await playground.draw(DRAWN[DIGIT]);
  await playground.settled();
  await page.evaluate(async () => {
    (document.activeElement as HTMLElement | null)?.blur();
    scrollTo(0, 0);
    await document.fonts.ready;
    await new Promise((resolve) => setTimeout(resolve, 300));
  });
  // From the top to the end of the second section.
  const height = await page.$eval("section:nth-of-type(2)", (section) =>
    Math.ceil(section.getBoundingClientRect().bottom + scrollY),
  );
  await page.screenshot({
    path: PICTURE,
    clip: { x: 0, y: 0, width: WIDTH, height: height + 16 },
    captureBeyondViewport: true,
  });
} finally {
  await browser.close();
  await site.close();
}
console.log(`${PICTURE}: ${Math.round(statSync(PICTURE).size / 1024)} KB`);
process.exit(0);
