/** The page as its tests use it: by mouse, by keyboard, and by reading it. */

import axe from "axe-core";
import { type Browser, type ElementHandle, launch, type Page } from "puppeteer-core";
import { findProgram, PROGRAMS } from "../../mnist/programs.js";
import type { Stroke } from "../src/strokes.js";

export const BROWSERS = ["chromium", "firefox"] as const;
export type BrowserName = (typeof BROWSERS)[number];

/** A browser of its own with an empty profile; a message where there is none here. */
export async function start(name: BrowserName): Promise<Browser | string> {
  const executablePath = findProgram(name);
  if (executablePath === undefined) return PROGRAMS[name].missing;
  return name === "firefox"
    ? launch({ browser: "firefox", executablePath })
    : launch({
        browser: "chrome",
        executablePath,
        args: ["--no-sandbox", "--disable-gpu"],
      });
}

export const WIDE = { width: 1280, height: 900 } as const;
export const PHONE = { width: 390, height: 844 } as const;

/** When a stroke ended, and when its answer stood on the page: milliseconds between them. */
export interface Latency {
  /** Until the answer is in the document. */
  readonly document: number;
  /** Until the frame after that. */
  readonly frame: number;
}

export class Playground {
  /** Errors and warnings of the page. */
  readonly complaints: string[] = [];
  readonly page: Page;

  constructor(page: Page) {
    this.page = page;
    page.on("console", (message) => {
      const type = message.type();
      if (type === "error" || type === "warn") this.complaints.push(message.text());
    });
    page.on("pageerror", (error) => this.complaints.push(String(error)));
  }

  /** Opens the page and times every stroke from its end to its answer, from the first one on. */
  async open(url: string, viewport: { width: number; height: number } = WIDE): Promise<void> {
    await this.page.setViewport(viewport);
    await this.page.goto(url, { waitUntil: "load" });
    await this.page.evaluate(() => {
      const waiting: number[] = [];
      const latencies: Latency[] = [];
      Object.assign(window, { latencies });
      addEventListener("pointerup", ({ timeStamp }) => waiting.push(timeStamp), true);
      let finished = Number(
        document.querySelector<HTMLElement>("[data-finished]")?.dataset.finished ?? 0,
      );
      new MutationObserver(() => {
        const now = Number(
          document.querySelector<HTMLElement>("[data-finished]")?.dataset.finished ?? 0,
        );
        const answer = document.querySelector("[data-answer]")?.getAttribute("data-answer");
        if (now === finished || !answer || waiting.length === 0) return;
        // Strokes that end before the page is drawn anew are answered together.
        const starts = waiting.splice(0, now - finished);
        finished = now;
        const inDocument = performance.now();
        requestAnimationFrame(() =>
          // A frame is drawn after its callbacks.
          setTimeout(() => {
            const frame = performance.now();
            for (const start of starts)
              latencies.push({ document: inDocument - start, frame: frame - start });
          }),
        );
      }).observe(document.body, { subtree: true, attributes: true, childList: true });
    });
  }

  /** Those of all strokes, once there are as many; the last one's frame may be still to come. */
  async latencies(strokes: number): Promise<Latency[]> {
    await this.page.waitForFunction(
      (wanted) => (window as unknown as { latencies: Latency[] }).latencies.length >= wanted,
      { timeout: 60_000, polling: 50 },
      strokes,
    );
    return this.page.evaluate(() => (window as unknown as { latencies: Latency[] }).latencies);
  }

  /** Waits for something on the page. */
  async until(what: () => boolean, timeout = 60_000): Promise<void> {
    await this.page.waitForFunction(what, { timeout, polling: 50 });
  }

  /** All data are there, and the held-out digits were answered once. */
  ready(): Promise<void> {
    return this.until(
      () => document.querySelector(".card.mini-batch .share")?.textContent?.includes("%") === true,
    );
  }

  /** The figures belong to what the controls say. */
  settled(): Promise<void> {
    return this.until(() => document.querySelector("[aria-busy='true']") === null);
  }

  async draw(strokes: readonly Stroke[]): Promise<void> {
    const { mouse } = this.page;
    const paper = await this.page.$(".paper");
    await paper?.evaluate((element) => element.scrollIntoView({ block: "center" }));
    const box = await paper?.boundingBox();
    if (!box) throw new Error("expected a drawing area.");
    for (const stroke of strokes) {
      const points = stroke.map(
        ({ x, y }) => [box.x + x * box.width, box.y + y * box.height] as const,
      );
      await mouse.move(...points[0]);
      await mouse.down();
      for (const point of points.slice(1)) await mouse.move(...point);
      await mouse.up();
    }
  }

  /** The two answers, as they stand on the page. */
  answers(): Promise<{ running: string; miniBatch: string }> {
    return this.page.evaluate(() => {
      const [running, miniBatch] = [...document.querySelectorAll("[data-answer]")].map(
        (element) => element.textContent ?? "",
      );
      return { running, miniBatch };
    });
  }

  /** Accuracies of the two cards on the held-out digits, in percent. */
  shares(): Promise<{ running: number; miniBatch: number }> {
    return this.page.evaluate(() => {
      const [running, miniBatch] = [...document.querySelectorAll(".card .share")].map((element) =>
        Number.parseFloat(element.textContent ?? ""),
      );
      return { running, miniBatch };
    });
  }

  /** Right answers before and after the last repair, in percent. */
  async outcome(): Promise<{ before: number; after: number }> {
    const numbers = (await this.text(".outcome")).match(/\d+\.\d/g) ?? [];
    const [before, after] = numbers.map(Number);
    return { before, after };
  }

  /** What axe-core objects to, rule and place. */
  async objections(): Promise<string[]> {
    await this.page.addScriptTag({ content: axe.source });
    return this.page.evaluate(async () => {
      const { violations } = await (window as unknown as { axe: typeof axe }).axe.run();
      return violations.flatMap(({ id, nodes }) => nodes.map(({ target }) => `${id}: ${target}`));
    });
  }

  text(selector: string): Promise<string> {
    return this.page.$eval(selector, (element) => element.textContent ?? "");
  }

  async focus(what: string | ElementHandle): Promise<void> {
    const element = typeof what === "string" ? await this.page.$(what) : what;
    if (element === null) throw new Error(`expected an element ${what}.`);
    await element.evaluate((one) => (one as HTMLElement).focus());
  }

  /** Presses a button by keyboard, which must not lose its place. */
  async press(label: string): Promise<void> {
    const buttons = await this.page.$$("button");
    for (const button of buttons) {
      const name = await button.evaluate((element) => element.textContent?.trim());
      if (name === label) {
        await this.focus(button);
        await this.page.keyboard.press("Enter");
        await this.settled();
        const lost = await this.page.evaluate(() => document.activeElement === document.body);
        if (lost) throw new Error(`expected the focus to stay in the page after "${label}".`);
        return;
      }
    }
    throw new Error(`expected a button "${label}".`);
  }

  /** Moves a slider by keys: `Home`, `End`, or some times an arrow. */
  async slide(id: string, key: "Home" | "End" | "ArrowLeft" | "ArrowRight", times = 1) {
    await this.focus(`#${id}`);
    for (let i = 0; i < times; i++) await this.page.keyboard.press(key);
  }
}
