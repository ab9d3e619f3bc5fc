/**
 * The built page in real browsers: the network trains, with either batch norm, and answers the held-out digits when
 * it is folded.
 *
 *   npm run test:convnet
 *
 * A browser that is not on this machine is skipped, but under CI=true.
 */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { type Browser, launch, type Page } from "puppeteer-core";
import { findProgram, PROGRAMS } from "../../mnist/programs.js";
import { type Host, host } from "../../playground/tests/host.js";

const ROOT = fileURLToPath(new URL("../out/page/", import.meta.url));
/** Milliseconds that a training may take on a busy machine. */
const PATIENCE = 120_000;
/** The issue: one example is served in under 1 ms. */
const MOST_ONE = 1;

for (const name of ["chromium", "firefox"] as const) {
  const executablePath = findProgram(name);
  const missing = executablePath === undefined ? PROGRAMS[name].missing : null;
  if (missing !== null && process.env.CI === "true") throw new Error(missing);

  describe(name, { skip: missing ?? false }, () => {
    const complaints: string[] = [];
    let browser: Browser;
    let site: Host;
    let page: Page;

    before(async () => {
      site = await host(ROOT);
      browser =
        name === "firefox"
          ? await launch({ browser: "firefox", executablePath: executablePath as string })
          : await launch({
              executablePath: executablePath as string,
              args: ["--no-sandbox", "--disable-gpu"],
            });
      page = await browser.newPage();
      page.on("console", (message) => {
        if (["error", "warn"].includes(message.type())) complaints.push(message.text());
      });
      page.on("pageerror", (error) => complaints.push(String(error)));
      await page.goto(site.url, { waitUntil: "load" });
    });
    after(async () => {
      await browser.close();
      await site.close();
    });

    /** Waits for a state, or for a failure, which is the page's own message. */
    async function until(wanted: string): Promise<void> {
      await page.waitForFunction(
        (state) =>
          ["failed", state].includes(
            document.querySelector<HTMLElement>("[data-state]")?.dataset.state ?? "",
          ),
        { timeout: PATIENCE, polling: 50 },
        wanted,
      );
      const [state, text] = await page.$eval("[data-state]", (element) => [
        (element as HTMLElement).dataset.state,
        element.textContent,
      ]);
      assert.equal(state, wanted, text ?? "");
    }

    const cell = (which: string) =>
      page.$eval(`[data-cell=${which}]`, (element) => element.textContent ?? "");
    const number = async (which: string) => Number.parseFloat(await cell(which));

    async function train(whose: "ours" | "tfjs", steps: number): Promise<void> {
      await page.click(`input[value=${whose}]`);
      await page.select("select", String(steps));
      await page.click("button");
      await until("trained");
      assert.equal(await cell("step"), `${steps} of ${steps}`);
    }

    test("trains, folds, and answers digits one at a time", async (t) => {
      await until("ready");
      await train("ours", 300);
      const [accuracy, one, difference] = [
        await number("accuracy"),
        await number("one"),
        await number("difference"),
      ];
      t.diagnostic(
        `${await browser.version()}: a step ${await cell("time")}, ${await cell("speed")} digits in a second, ` +
          `accuracy ${accuracy} %, one digit ${one} ms, folding changed a score by ${difference}`,
      );
      assert.ok(accuracy > 93, `${accuracy} % of the held-out digits`);
      assert.ok(one < MOST_ONE, `${one} ms`);
      assert.ok(difference < 1e-4, `${difference}`);
      assert.equal((await page.$$("figure")).length, 20);
      assert.ok((await page.$$("[data-plot=means] polyline")).length === 8);
    });

    test("trains with the layer of TensorFlow.js, which takes longer", async (t) => {
      const ours = await number("time");
      await train("tfjs", 30);
      const tfjs = await number("time");
      t.diagnostic(`a step ${tfjs} ms: ${(tfjs / ours).toFixed(1)} times as long`);
      assert.equal(await cell("difference"), "not folded");
      assert.ok(tfjs > 1.5 * ours, `${tfjs} ms and ${ours} ms`);
    });

    test("complains of nothing, and misses no file", () => {
      assert.deepEqual(complaints, []);
      assert.deepEqual(site.sent.missing, []);
    });
  });
}
