/**
 * The built page in real browsers: what is drawn with the mouse and by keyboard is answered, in time;
 * the buttons do what they say; nothing complains, nothing is cut off.
 *
 *   npm run test:playground
 *
 * A browser that is not on this machine is skipped, but under CI=true.
 */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Browser } from "puppeteer-core";
import { DRAWN } from "./drawn.js";
import { type Host, host } from "./host.js";
import { BROWSERS, PHONE, Playground, start } from "./page.js";

/** In milliseconds from the end of a stroke to the first answer, and in bytes of all that is loaded. */
const MOST_TIME = 100;
const MOST_BYTES = 1_000_000;

for (const name of BROWSERS) {
  const started = await start(name);
  const missing = typeof started === "string" ? started : null;
  if (missing !== null && process.env.CI === "true") throw new Error(missing);

  describe(name, { skip: missing ?? false }, () => {
    const browser = started as Browser;
    let site: Host;
    let playground: Playground;

    before(async () => {
      site = await host();
      playground = new Playground(await browser.newPage());
    });
    after(async () => {
      await browser.close();
      await site.close();
    });

    /** Opens the page and draws all digits. Returns the milliseconds of the first answer and of the slowest. */
    const drawAll = async () => {
      site.forget();
      await playground.open(site.url);
      const miniBatch = new Set<string>();
      for (const [digit, strokes] of DRAWN.entries()) {
        if (digit > 0) await playground.press("Clear");
        await playground.draw(strokes);
        await playground.until(
          () => document.querySelector("[data-answer]")?.textContent?.match(/\d/) !== null,
        );
        const answers = await playground.answers();
        assert.equal(answers.running, String(digit));
        miniBatch.add(answers.miniBatch);
      }
      assert.equal(miniBatch.size, 1, "one digit alone: always the same answer");

      await playground.ready();
      const strokes = DRAWN.flat().length;
      const latencies = await playground.latencies(strokes);
      assert.equal(latencies.length, strokes, "every stroke was answered");
      return { first: latencies[0].frame, slowest: Math.max(...latencies.map((one) => one.frame)) };
    };

    test("answers ten drawn digits, the very first in time", async (t) => {
      // Other programs of the machine can hold up one round, hardly three.
      for (let rounds = 1, inTime = false; !inTime; rounds++) {
        const { first, slowest } = await drawAll();
        t.diagnostic(
          `stroke's end to answer, with its frame: the first ${first.toFixed(1)} ms, ` +
            `the slowest ${slowest.toFixed(1)}`,
        );
        inTime = slowest < MOST_TIME;
        assert.ok(inTime || rounds < 3, `${slowest} ms`);
      }
    });

    test("transfers less than 1 MB", (t) => {
      const { wire, unpacked, files, missing: absent } = site.sent;
      t.diagnostic(`${wire} bytes on the wire, ${unpacked} uncompressed, ${files.length} files`);
      assert.deepEqual(absent, []);
      assert.ok(files.some((file) => file.includes("training")));
      assert.ok(wire < MOST_BYTES, `${wire} bytes`);
    });

    test("by keyboard: draws, clears, takes an example", async () => {
      const { keyboard } = playground.page;
      await playground.press("Clear");
      assert.deepEqual(await playground.answers(), { running: "–", miniBatch: "–" });
      await playground.focus(".paper");
      for (let i = 0; i < 4; i++) await keyboard.press("ArrowUp");
      await keyboard.press(" ");
      for (let i = 0; i < 26; i++) await keyboard.press("ArrowDown");
      await keyboard.press(" ");
      assert.equal((await playground.answers()).running, "1");
      const spoken = await playground.text("[aria-live]");
      assert.match(spoken, /^By running averages: 1, \d+ percent sure\. By the mini-batch of 1: /);
      await keyboard.press("Delete");
      assert.equal((await playground.answers()).running, "–");
      await playground.focus("[aria-label='Example: a handwritten 4']");
      await keyboard.press("Enter");
      assert.equal((await playground.answers()).running, "4");
    });

    test("every control is reached by Tab and shows it", async () => {
      const { page } = playground;
      const all = await page.evaluate(() => {
        const controls = [
          ...document.querySelectorAll<HTMLElement>("button, input, [tabindex='0']"),
        ].filter(
          (element) =>
            !(element instanceof HTMLInputElement && element.type === "radio" && !element.checked),
        );
        controls.forEach((element, i) => {
          element.dataset.control = String(i);
        });
        return controls.length;
      });
      // From the first to the last: after it, Tab leaves the page for the browser.
      const reached = new Set<string>();
      await playground.focus("[data-control='1']");
      await page.keyboard.down("Shift");
      await page.keyboard.press("Tab");
      await page.keyboard.up("Shift");
      for (let i = 0; i < all; i++) {
        if (i > 0) await page.keyboard.press("Tab");
        const [control, seen, named] = await page.evaluate(() => {
          const element = document.activeElement as HTMLElement;
          const shown =
            element instanceof HTMLInputElement && element.type === "radio"
              ? (element.nextElementSibling as Element)
              : element;
          const style = getComputedStyle(shown);
          const label =
            element.ariaLabel ??
            element.getAttribute("aria-label") ??
            (element as HTMLInputElement).labels?.[0]?.textContent ??
            element.textContent;
          return [
            element.dataset.control,
            style.outlineStyle !== "none" && Number.parseFloat(style.outlineWidth) >= 2,
            label?.trim() !== "",
          ];
        });
        if (typeof control !== "string") throw new Error("Tab left the page's controls.");
        assert.ok(seen, `control ${control} shows its focus`);
        assert.ok(named, `control ${control} has a name`);
        reached.add(control);
      }
      assert.equal(reached.size, all);
    });

    test("accessible as far as axe-core can tell, in light and in dark", async () => {
      assert.deepEqual(await playground.objections(), []);
      // Firefox' BiDi cannot emulate the colour scheme yet.
      if (name !== "chromium") return;
      const scheme = (value: string) =>
        playground.page.emulateMediaFeatures([{ name: "prefers-color-scheme", value }]);
      await scheme("dark");
      const paper = await playground.page.evaluate(
        () => getComputedStyle(document.body).backgroundColor,
      );
      assert.equal(paper, "rgb(20, 22, 26)");
      // Ink that was painted in the light is repainted: light on dark.
      const ink = await playground.page.$eval(".seen canvas", (canvas) => {
        const pixels = (canvas as HTMLCanvasElement).getContext("2d")?.getImageData(0, 0, 28, 28);
        const darkest = pixels?.data.findIndex((value, i) => i % 4 === 3 && value > 250) ?? 3;
        return pixels?.data[darkest - 1];
      });
      assert.ok((ink ?? 0) > 200, `${ink}`);
      assert.deepEqual(await playground.objections(), []);
      await scheme("light");
    });

    test("a larger test batch helps the mini-batch, not the running averages", async () => {
      const alone = await playground.shares();
      assert.ok(alone.running > 96 && alone.miniBatch < 20, JSON.stringify(alone));
      await playground.slide("batch-size", "End");
      await playground.until(() =>
        [...document.querySelectorAll(".card .share")].every(
          (element) => Number.parseFloat(element.textContent ?? "") > 90,
        ),
      );
      assert.equal((await playground.shares()).running, alone.running);
      assert.equal((await playground.answers()).miniBatch, "4");
      await playground.slide("batch-size", "Home");
    });

    test("less contrast is diagnosed; adapt repairs, undo takes it back", async () => {
      await playground.slide("contrast", "ArrowLeft", 12);
      await playground.until(() => document.querySelector(".verdict.drifted") !== null);
      await playground.settled();
      const shifted = (await playground.shares()).running;
      assert.ok(shifted < 60, `${shifted}`);
      await playground.press("Adapt");
      await playground.until(() => document.querySelector(".outcome .adapt") !== null);
      const outcome = await playground.outcome();
      assert.equal(outcome.before, shifted);
      assert.ok(outcome.after > 85, `${outcome.after}`);
      assert.match(await playground.text(".verdict"), /fit/);
      await playground.press("Undo adapt");
      await playground.until(() => document.querySelector(".verdict.drifted") !== null);
      await playground.slide("contrast", "End");
      await playground.until(() => document.querySelector(".verdict.fit") !== null);
    });

    test("trains: play, pause, step; calibrate repairs young averages; back again", async () => {
      const steps = async () =>
        Number((await playground.text(".status")).match(/(\d+) mini-batches/)?.[1] ?? 0);
      await playground.slide("decay", "ArrowRight", 3);
      assert.equal(await playground.text("output[for=decay]"), "0.99");
      await playground.press("Train a new network");
      await playground.until(
        () =>
          Number(document.querySelector(".status")?.textContent?.match(/(\d+) mini/)?.[1]) >= 30,
      );
      await playground.press("Pause");
      await playground.until(() =>
        [...document.querySelectorAll("button")].some(
          (button) => button.textContent === "Train on",
        ),
      );
      // The step that it was in ends first.
      await playground.settled();
      const paused = await steps();
      await new Promise((resolve) => setTimeout(resolve, 500));
      assert.equal(await steps(), paused);
      await playground.press("One step");
      await playground.page.waitForFunction(
        (expected) =>
          Number(document.querySelector(".status")?.textContent?.match(/(\d+) mini/)?.[1]) ===
          expected,
        {},
        paused + 1,
      );
      await playground.until(
        () => document.querySelector(".verdict")?.textContent === "undertrained",
      );
      await playground.press("Calibrate");
      await playground.until(() => document.querySelector(".outcome .calibrate") !== null);
      const outcome = await playground.outcome();
      assert.ok(outcome.after > outcome.before + 10, JSON.stringify(outcome));
      assert.match(await playground.text(".verdict"), /fit/);
      await playground.press("a new network after 50 mini-batches");
      await playground.until(
        () => document.querySelector(".verdict")?.textContent === "undertrained",
      );
      assert.equal(await steps(), 50);
      await playground.press("Back to the trained network");
      await playground.until(
        () =>
          Number.parseFloat(document.querySelector(".card .share")?.textContent ?? "") > 96 &&
          document.querySelector(".status")?.textContent?.startsWith("The network as") === true,
      );
    });

    test("a training that is abandoned at full speed leaves nothing behind", async () => {
      const { page } = playground;
      const speed = (at: number) =>
        page.$$eval(
          "input[name=speed]",
          (all, chosen) => (all.at(chosen) as HTMLInputElement).click(),
          at,
        );
      /** All that the page shows of the network: what it says, how many points are in the plots, and its answers. */
      const shown = async () => ({
        status: await playground.text(".status"),
        verdict: await playground.text(".verdict"),
        points: await page.$$eval("[data-points]", (all) =>
          all.map((plot) => (plot as HTMLElement).dataset.points),
        ),
        shares: await playground.shares(),
      });
      const before = await shown();
      assert.equal(before.status, "The network as the demo trained it");
      await speed(-1);
      // Each time after another number of milliseconds, so that the training is abandoned in each of its steps.
      for (let attempt = 0; attempt < 12; attempt++) {
        await playground.press("Train a new network");
        await playground.until(
          () =>
            Number(document.querySelector(".status")?.textContent?.match(/(\d+) mini/)?.[1]) >= 60,
        );
        await new Promise((resolve) => setTimeout(resolve, 23 * attempt));
        await playground.press("Back to the trained network");
        await new Promise((resolve) => setTimeout(resolve, 400));
        await playground.settled();
        assert.deepEqual(await shown(), before, `attempt ${attempt + 1}`);
      }
      await speed(1);
    });

    test("nothing is wider than the screen", async () => {
      for (const width of [PHONE.width, 320, 768, 1280]) {
        await playground.page.setViewport({ width, height: PHONE.height });
        await new Promise((resolve) => setTimeout(resolve, 300));
        const widest = await playground.page.evaluate(
          () => document.documentElement.scrollWidth - innerWidth,
        );
        assert.ok(widest <= 0, `${widest} px too wide at ${width}`);
      }
    });

    test("in time on a processor four times as slow", async (t) => {
      if (name !== "chromium") return t.skip("only Chromium can slow itself down");
      const slow = new Playground(await browser.newPage());
      await slow.page.emulateCPUThrottling(4);
      await slow.open(site.url);
      await slow.ready();
      await slow.draw(DRAWN[3]);
      await slow.until(() => document.querySelector("[data-answer]")?.textContent === "3");
      const [first] = await slow.latencies(1);
      t.diagnostic(
        `stroke's end to answer: ${first.document.toFixed(1)} ms, ` +
          `${first.frame.toFixed(1)} with its frame`,
      );
      assert.ok(first.document < MOST_TIME);
    });

    test("nothing complains", () => assert.deepEqual(playground.complaints, []));
  });
}
