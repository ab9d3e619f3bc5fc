/** The browsers of this machine, as far as the tests of the site need them: Chromium by playwright-core, Firefox by puppeteer-core. */

import axe from "axe-core";
import { type Browser as Chromium, chromium } from "playwright-core";
import puppeteer, { type Browser as Firefox } from "puppeteer-core";
import { findProgram, PROGRAMS } from "../../examples/mnist/programs.js";

export type Name = "chromium" | "firefox";
export const BROWSERS: readonly Name[] = ["chromium", "firefox"];

export const WIDE = { width: 1400, height: 900 } as const;
export const PHONE = { width: 400, height: 850 } as const;

/** What playwright's and puppeteer's pages have in common. */
interface Driven {
  // biome-ignore lint/suspicious/noExplicitAny: the two libraries have types of their own for the same events.
  on(event: any, listener: (value: any) => void): unknown;
  goto(address: string, options?: { waitUntil?: "load" }): Promise<unknown>;
  evaluate(script: string): Promise<unknown>;
  readonly keyboard: Record<"press" | "type" | "down" | "up", (key: unknown) => Promise<void>>;
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  screenshot(options?: any): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** A page in one of them. */
export class Page {
  /** Errors and warnings of the page. */
  readonly complaints: string[] = [];
  readonly #page: Driven;
  readonly setViewport: (size: { width: number; height: number }) => Promise<unknown>;
  readonly emulate: (features: { dark?: boolean; print?: boolean }) => Promise<unknown>;

  constructor(page: Driven, setViewport: Page["setViewport"], emulate: Page["emulate"]) {
    this.#page = page;
    this.setViewport = setViewport;
    this.emulate = emulate;
    page.on("console", (message: { type(): string; text(): string }) => {
      if (["error", "warn", "warning"].includes(message.type()))
        this.complaints.push(message.text());
    });
    page.on("pageerror", (error: unknown) => this.complaints.push(String(error)));
  }

  async open(url: string): Promise<void> {
    await this.#page.goto(url, { waitUntil: "load" });
    await this.until("document.querySelector('#app')?.__vue_app__ !== undefined");
  }

  /** The value of an expression in the page. */
  read<T = unknown>(expression: string): Promise<T> {
    return this.#page.evaluate(expression) as Promise<T>;
  }

  /** Waits until an expression in the page is true. */
  async until(expression: string, seconds = 30): Promise<void> {
    const end = Date.now() + seconds * 1000;
    for (;;) {
      if (await this.read(`Boolean(${expression})`).catch(() => false)) return;
      if (Date.now() > end) throw new Error(`waited ${seconds} s for ${expression}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Presses keys, as a person at the keyboard does. */
  async press(...keys: readonly string[]): Promise<void> {
    for (const key of keys) {
      const [last, ...held] = key === "/" ? [key] : key.split("+").reverse();
      for (const each of held) await this.#page.keyboard.down(each);
      await this.#page.keyboard.press(last);
      for (const each of held) await this.#page.keyboard.up(each);
    }
  }

  type(text: string): Promise<void> {
    return this.#page.keyboard.type(text);
  }

  screenshot(options: { path: string; fullPage?: boolean }): Promise<Uint8Array> {
    return this.#page.screenshot(options);
  }

  /** What axe-core objects to: rule and place. */
  async objections(): Promise<string[]> {
    await this.read(`${axe.source};0`);
    // The search button is VitePress' own: its name is "Search", and it shows the keys beside it.
    const options = { rules: { "label-content-name-mismatch": { enabled: false } } };
    return this.read(`axe.run(${JSON.stringify(options)}).then(({ violations }) =>
      violations.flatMap(({ id, nodes }) => nodes.map(({ target }) => id + ": " + target)))`);
  }

  close(): Promise<void> {
    return this.#page.close();
  }
}

export interface Browser {
  readonly version: string;
  /** A new page; `empty`: with an empty cache, which it shares with no other page. */
  page(options?: { empty?: boolean }): Promise<Page>;
  close(): Promise<void>;
}

/** Starts a browser with an empty profile; a message where there is none on this machine. */
export async function start(name: Name): Promise<Browser | string> {
  const executablePath = findProgram(name);
  if (executablePath === undefined) return PROGRAMS[name].missing;
  return name === "chromium"
    ? ofPlaywright(
        await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] }),
      )
    : ofPuppeteer(await puppeteer.launch({ browser: "firefox", executablePath, headless: true }));
}

const ofPlaywright = (browser: Chromium): Browser => ({
  version: `Chromium ${browser.version()}`,
  async page() {
    const context = await browser.newContext({ viewport: WIDE });
    const page = await context.newPage();
    return new Page(
      page as unknown as Driven,
      (size) => page.setViewportSize(size),
      ({ dark = false, print = false }) =>
        page.emulateMedia({
          colorScheme: dark ? "dark" : "light",
          media: print ? "print" : "screen",
        }),
    );
  },
  close: () => browser.close(),
});

const ofPuppeteer = async (browser: Firefox): Promise<Browser> => ({
  version: (await browser.version()).replace(/^firefox\//i, "Firefox "),
  async page({ empty = false } = {}) {
    const page = await (empty ? await browser.createBrowserContext() : browser).newPage();
    await page.setViewport(WIDE);
    return new Page(
      page as unknown as Driven,
      (size) => page.setViewport(size),
      async () => {
        throw new Error("Firefox is driven without emulated media.");
      },
    );
  },
  close: () => browser.close(),
});
