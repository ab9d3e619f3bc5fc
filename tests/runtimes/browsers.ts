// The browsers of Debian: Chromium by playwright-core, Firefox by puppeteer-core (WebDriver BiDi),
// WebKitGTK's MiniBrowser by WebKitWebDriver (W3C WebDriver) on a virtual display.

import type { ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { type AddressInfo, createServer } from "node:net";
import { chromium as playwright } from "playwright-core";
import puppeteer from "puppeteer-core";
import { find, findProgram } from "../../examples/mnist/programs.js";
import { start } from "./project.js";

/** A running browser. */
export interface Browser {
  readonly version: string;
  /** Opens a page; `problem` rejects when the page or one of its files fails. */
  open(address: string): Promise<Page>;
  close(): Promise<void>;
}

export interface Page {
  /** Never resolves; rejects with what went wrong on the page, where the driver tells. */
  readonly problem: Promise<never>;
  /** The value of an expression of JavaScript on the page. */
  read(expression: string): Promise<unknown>;
  /** A PNG of the page. */
  picture(): Promise<Uint8Array>;
  close(): Promise<void>;
}

export interface BrowserKind {
  readonly name: string;
  /** The Debian packages it takes, if a program of theirs is missing. */
  missing(): string | undefined;
  launch(options?: LaunchOptions): Promise<Browser>;
}

interface LaunchOptions {
  /** By a switch that the engine has for it. */
  withoutSimd?: boolean;
}

const MINI_BROWSERS = ["4.1", "6.0", "4.0"].flatMap((version) =>
  ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(
    (machine) =>
      `/usr/lib/${machine}/${version === "6.0" ? "webkitgtk" : "webkit2gtk"}-${version}/MiniBrowser`,
  ),
);

const install = (packages: string): string => `apt-get install -y ${packages}`;

/** A promise that only rejects, and the way to have it do so. */
function trouble(): { problem: Promise<never>; report: (message: string) => void } {
  let report = (_message: string): void => {};
  const problem = new Promise<never>((_, reject) => {
    report = (message) => reject(new Error(message));
  });
  problem.catch(() => {});
  return { problem, report };
}

const CHROMIUM_ARGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Chromium as playwright-core has it. */
export const launchChromium = (args: readonly string[] = []) =>
  playwright.launch({
    executablePath: findProgram("chromium")!,
    args: [...CHROMIUM_ARGS, ...args],
  });

export const chromium: BrowserKind = {
  name: "Chromium",
  missing: () => (findProgram("chromium") ? undefined : install("chromium")),
  async launch({ withoutSimd = false } = {}) {
    const browser = await launchChromium(withoutSimd ? ["--js-flags=--no-enable-sse4-1"] : []);
    return {
      version: browser.version(),
      async open(address) {
        const page = await browser.newPage();
        return opening(page, address, (report) => {
          page.on("response", (response) => {
            // 504 is what Vite's dev server answers before it has the page loaded again.
            const status = response.status();
            if (status >= 400 && status !== 504) report(`${response.url()}: ${status}`);
          });
        });
      },
      close: () => browser.close(),
    };
  },
};

/** Chromium with an unpacked extension, and the address of the extension's files. */
export async function launchExtension(
  folder: string,
): Promise<{ browser: Browser; address: string }> {
  const context = await playwright.launchPersistentContext("", {
    executablePath: findProgram("chromium")!,
    args: [...CHROMIUM_ARGS, `--disable-extensions-except=${folder}`, `--load-extension=${folder}`],
    ignoreDefaultArgs: ["--disable-extensions"],
  });
  // Chromium makes the name of an unpacked extension of its path: the hash's first 16 bytes, with a to p for 0 to f.
  const hash = createHash("sha256").update(folder).digest("hex").slice(0, 32);
  const name = hash.replace(/./g, (digit) => "abcdefghijklmnop"[Number.parseInt(digit, 16)]!);
  return {
    browser: {
      version: context.browser()!.version(),
      open: async (address) => opening(await context.newPage(), address),
      close: () => context.close(),
    },
    address: `chrome-extension://${name}/`,
  };
}

/** What the pages of playwright-core and puppeteer-core have in common. */
interface Driven {
  on(event: "pageerror", listener: (error: unknown) => void): unknown;
  goto(address: string): Promise<unknown>;
  evaluate(expression: string): Promise<unknown>;
  screenshot(): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** Opens a page; `watch` may report what its driver tells. */
async function opening(
  page: Driven,
  address: string,
  watch: (report: (message: string) => void) => void = () => {},
): Promise<Page> {
  const { problem, report } = trouble();
  watch(report);
  page.on("pageerror", (error) => {
    const message = String(error);
    // Firefox tells of what a policy blocks as of an error that nobody caught, sooner or later than the page answers.
    if (!message.startsWith("Error: Content-Security-Policy:")) report(message);
  });
  await page.goto(address);
  return {
    problem,
    read: (expression) => page.evaluate(expression),
    picture: () => page.screenshot(),
    close: () => page.close(),
  };
}

export const firefox: BrowserKind = {
  name: "Firefox",
  missing: () => (findProgram("firefox") ? undefined : install("firefox-esr")),
  async launch() {
    const browser = await puppeteer.launch({
      browser: "firefox",
      executablePath: findProgram("firefox")!,
      headless: true,
    });
    return {
      version: (await browser.version()).replace(/^firefox\//i, ""),
      async open(address) {
        return opening(await browser.newPage(), address);
      },
      close: () => browser.close(),
    };
  },
};

export const webkit: BrowserKind = {
  name: "WebKit",
  missing: () =>
    find("WebKitWebDriver") && find("Xvfb") && find(...MINI_BROWSERS)
      ? undefined
      : install("webkit2gtk-driver xvfb"),
  launch: launchWebKit,
};

/** A screen that nobody looks at, and its number. */
async function startScreen(): Promise<{ screen: ChildProcess; display: string }> {
  const screen = start(find("Xvfb")!, ["-displayfd", "3", "-screen", "0", "1280x1024x24"], {
    stdio: ["ignore", "ignore", "ignore", "pipe"],
  });
  const display = await new Promise<string>((resolve, reject) => {
    screen.once("error", reject);
    screen.once("exit", (code) => reject(new Error(`Xvfb ended with ${code}`)));
    screen.stdio[3]!.once("data", (data) => resolve(String(data).trim()));
  });
  return { screen, display };
}

async function launchWebKit({ withoutSimd = false }: LaunchOptions = {}): Promise<Browser> {
  const { screen, display } = await startScreen();
  const port = await freePort();
  const driver = start(find("WebKitWebDriver")!, [`--port=${port}`], {
    stdio: "ignore",
    env: {
      ...process.env,
      DISPLAY: `:${display}`,
      GDK_BACKEND: "x11",
      // Its sandbox needs user namespaces, which root in a container has not.
      WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: "1",
      ...(withoutSimd ? { JSC_useWasmSIMD: "0" } : {}),
    },
  });
  const stop = (): void => {
    driver.kill();
    screen.kill();
  };
  try {
    const call = clientOf(`http://127.0.0.1:${port}`);
    await ready(call, driver);
    return await openSession(call, stop);
  } catch (error) {
    stop();
    throw error;
  }
}

/** A browser by WebDriver; `stop` ends what runs it. */
async function openSession(call: Call, stop: () => void): Promise<Browser> {
  const { sessionId, capabilities } = (await call("POST", "/session", {
    capabilities: {
      alwaysMatch: {
        "webkitgtk:browserOptions": { binary: find(...MINI_BROWSERS)!, args: ["--automation"] },
      },
    },
  })) as { sessionId: string; capabilities: { browserVersion: string } };
  const session = `/session/${sessionId}`;
  return {
    version: capabilities.browserVersion,
    async open(address) {
      const { problem } = trouble();
      await call("POST", `${session}/url`, { url: address });
      return {
        problem,
        read: (expression) =>
          call("POST", `${session}/execute/sync`, { script: `return ${expression}`, args: [] }),
        picture: async () =>
          Buffer.from((await call("GET", `${session}/screenshot`)) as string, "base64"),
        close: async () => {
          await call("POST", `${session}/url`, { url: "about:blank" });
        },
      };
    },
    async close() {
      await call("DELETE", session).catch(() => {});
      stop();
    },
  };
}

export const BROWSERS: readonly BrowserKind[] = [chromium, firefox, webkit];

type Call = (method: string, path: string, body?: unknown) => Promise<unknown>;

/** Seconds that WebDriver may take to answer: a new session, the longest, took half a second. */
const ANSWER = 30;

/** Commands of W3C WebDriver. */
const clientOf =
  (root: string): Call =>
  async (method, path, body) => {
    const response = await fetch(root + path, {
      method,
      signal: AbortSignal.timeout(1000 * ANSWER),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const { value } = (await response.json()) as { value: { message?: string } };
    if (!response.ok) throw new Error(`WebDriver ${path}: ${value?.message}`);
    return value;
  };

/** Waits until a driver answers. */
async function ready(call: Call, driver: ChildProcess): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      await call("GET", "/status");
      return;
    } catch (error) {
      if (tries === 100 || driver.exitCode !== null) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
