/**
 * The built site in real browsers: every link leads somewhere, the search finds, examples run and print what the guides
 * say, the benchmark measures, the pictures compute, nothing complains, nothing is cut off, and the first view is small.
 *
 *   npm run test:site
 *
 * A browser that is not on this machine is skipped, but under CI=true.
 */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { BROWSERS, type Browser, type Page, PHONE, start, WIDE } from "./browser.js";
import { FOLDER, Host } from "./host.js";

/** The first view of a page: all that is sent until nothing more comes, gzipped as static hosts do. */
const MOST_BYTES = 300_000;
/** The playground's own budget (examples/playground/tests). */
const MOST_BYTES_OF_PLAYGROUND = 1_000_000;
const SITE = fileURLToPath(new URL("../../build/site-tested/", import.meta.url));
/** One page of each kind. */
const PAGES = [
  "index.html",
  "guides/first-steps.html",
  "guides/places.html",
  "guides/from-pytorch.html",
  "how-it-works.html",
  "measure.html",
  "playground.html",
  "api/index.html",
  "api/batchnorm-wasm/classes/BatchNorm.html",
  "inside/architecture.html",
  "inside/benchmark.html",
];

const files = readdirSync(SITE, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => relative(SITE, join(entry.parentPath, entry.name)));
const pages = files.filter((file) => file.endsWith(".html") && !file.startsWith("playground-app"));
const textOf = (file: string): string => readFileSync(join(SITE, file), "utf8");
const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

describe("files", () => {
  const ids = new Map<string, Set<string>>();
  const idsOf = (file: string): Set<string> => {
    const known =
      ids.get(file) ?? new Set([...textOf(file).matchAll(/ id="([^"]+)"/g)].map(([, id]) => id!));
    ids.set(file, known);
    return known;
  };

  test("every link, picture and script leads to a file of the site, every anchor to a heading", (t) => {
    let links = 0;
    for (const page of pages.filter((file) => file !== "404.html")) {
      const markup = textOf(page).replace(/<pre[\s\S]*?<\/pre>/g, "");
      for (const [, to] of markup.matchAll(/ (?:href|src)="([^"]*)"/g)) {
        const link = to!.replaceAll("&amp;", "&");
        if (/^(data|https?|mailto):/.test(link)) continue;
        const { pathname, hash } = new URL(link, `http://host${FOLDER}${page}`);
        assert.ok(pathname.startsWith(FOLDER), `${page}: ${link}`);
        const path = decodeURIComponent(pathname.slice(FOLDER.length));
        const file = path === "" || path.endsWith("/") ? `${path}index.html` : path;
        assert.ok(files.includes(file), `${page}: ${link}`);
        // The anchor of the skip link is made by VitePress when the page runs.
        if (hash !== "" && hash !== "#VPContent" && file.endsWith(".html")) {
          assert.ok(idsOf(file).has(decodeURIComponent(hash.slice(1))), `${page}: ${link}`);
        }
        links++;
      }
    }
    assert.ok(links > 2000);
    t.diagnostic(`${links} links of ${pages.length} pages`);
  });

  test("nothing is fetched from elsewhere", () => {
    for (const page of pages) {
      const fetched = [
        ...textOf(page).matchAll(
          /<(?:script|img|iframe|link)\b[^>]*(?:src|href)="(https?:[^"]*)"/g,
        ),
      ];
      assert.deepEqual(
        fetched.map(([, address]) => address),
        [],
        page,
      );
    }
    for (const file of files.filter((name) => name.endsWith(".css"))) {
      assert.doesNotMatch(textOf(file), /url\(["']?(https?:)?\/\//, file);
    }
  });

  test("every guide is a page, with all its text", () => {
    const guides = fileURLToPath(new URL("../../docs/guides/", import.meta.url));
    for (const guide of readdirSync(guides)) {
      const page = `guides/${guide.replace(".md", ".html")}`;
      assert.ok(pages.includes(page), page);
      const prose = readFileSync(join(guides, guide), "utf8").replace(/^```[\s\S]*?^```$/gm, "");
      const shown = [...textOf(page).matchAll(/<h[1-6] id=/g)];
      assert.equal(shown.length, prose.match(/^#+ .*$/gm)!.length, page);
    }
  });
});

/** The frame of an example, as an expression of the page. */
const example = (index: number): string => `document.querySelectorAll(".example")[${index}]`;

/** Runs an example, and waits until it has ended. */
async function runExample(page: Page, index: number, seconds = 60): Promise<string> {
  const at = example(index);
  await page.read(`${at}.querySelector(".run").click()`);
  await page.until(
    `!["", "Running …"].includes(${at}.querySelector(".verdict").textContent)`,
    seconds,
  );
  return page.read<string>(`${at}.querySelector(".verdict").textContent`);
}

const printed = (page: Page, index: number): Promise<string> =>
  page.read<string>(`${example(index)}.querySelector(".printed")?.textContent ?? ""`);

/** The number that a picture shows. */
async function shown(page: Page, name: string, nth = 0): Promise<number> {
  const text = await page.read<string>(
    `document.querySelectorAll("[data-value='${name}']")[${nth}].textContent`,
  );
  return Number.parseFloat(text.replace("−", "-"));
}

/** Sets the focus on a slider, found by its label in a picture. */
const focusSlider = (page: Page, picture: number, label: string): Promise<unknown> =>
  page.read(`[...document.querySelectorAll(".touch")[${picture}].querySelectorAll(".slide")]
    .find((slide) => slide.querySelector("label").textContent.startsWith(${JSON.stringify(label)}))
    .querySelector("input").focus()`);

for (const name of BROWSERS) {
  const started = await start(name);
  const missing = typeof started === "string" ? started : null;
  if (missing !== null && process.env.CI === "true") throw new Error(missing);

  describe(name, { skip: missing ?? false }, () => {
    const browser = started as Browser;
    let host: Host;
    let page: Page;

    before(async () => {
      host = await Host.start({ isolated: true });
      page = await browser.page();
    });
    after(async () => {
      await browser.close();
      await host.close();
    });
    const open = (path: string): Promise<void> => page.open(host.url + path);

    test("the first view of each page is small", async (t) => {
      t.diagnostic(browser.version);
      for (const path of PAGES) {
        // A page of its own each time, whose cache is empty.
        const fresh = await browser.page({ empty: true });
        host.sent.length = 0;
        await fresh.open(host.url + path);
        for (let before = -1; before !== host.sent.length; await pause(600)) {
          before = host.sent.length;
        }
        const own = host.sent.filter((file) => !file.name.startsWith("playground-app"));
        const bytes = own.reduce((sum, file) => sum + file.bytes, 0);
        const all = host.sent.reduce((sum, file) => sum + file.bytes, 0);
        t.diagnostic(
          `${path}: ${(bytes / 1000).toFixed(0)} KB in ${own.length} files` +
            (all > bytes ? `, and ${((all - bytes) / 1000).toFixed(0)} KB of the playground` : ""),
        );
        assert.ok(bytes > 20_000, "the page was fetched, not taken from a cache");
        assert.ok(bytes < MOST_BYTES, `${path}: ${bytes} bytes`);
        assert.ok(all - bytes < MOST_BYTES_OF_PLAYGROUND, `${path}: ${all - bytes} bytes`);
        assert.deepEqual(fresh.complaints, [], path);
        await fresh.close();
      }
      assert.deepEqual(host.missing, []);
    });

    test("no page is wider than a phone", async () => {
      for (const path of PAGES) {
        await page.setViewport(PHONE);
        await open(path);
        await pause(200);
        const over = await page.read<number>("document.documentElement.scrollWidth - innerWidth");
        assert.ok(over <= 0, `${path}: ${over} pixels too wide`);
      }
      await page.read("document.querySelector('.VPNavBarHamburger').click()");
      await page.until("document.querySelector('.VPNavScreen a') !== null");
      await page.setViewport(WIDE);
    });

    test("the search finds a heading of a guide, and leads to it, by keyboard", async () => {
      await open("index.html");
      await page.press("/");
      await page.until("document.querySelector('#localsearch-input') === document.activeElement");
      await page.type("train/eval gap");
      await page.until("document.querySelectorAll('.VPLocalSearchBox .result').length > 0");
      await page.press("Enter");
      await page.until("/train-eval-gap/.test(location.pathname)");
      await page.until("/train\\/eval gap/.test(document.querySelector('h1')?.textContent)");
    });

    test("the search finds a method of the reference", async () => {
      await open("index.html");
      await page.press("/");
      await page.until("document.querySelector('#localsearch-input') === document.activeElement");
      await page.type("backwardSums");
      await page.until(
        "[...document.querySelectorAll('.VPLocalSearchBox .result')].some(({ href }) => /\\/api\\//.test(href))",
      );
    });

    test("all examples that can run do, and print what the guides say", async (t) => {
      const times: number[] = [];
      const guides = pages.filter((file) => /^(guides\/|index)/.test(file));
      let standing = 0;
      for (const path of guides) {
        await open(path);
        const count = await page.read<number>("document.querySelectorAll('.example').length");
        for (let i = 0; i < count; i++) {
          if (!(await page.read(`${example(i)}.querySelector(".run") !== null`))) {
            standing++;
            const why = await page.read<string>(`${example(i)}.querySelector(".note").textContent`);
            assert.match(why, /does not run on this page|runs outside of this page/, path);
            continue;
          }
          const began = performance.now();
          const verdict = await runExample(page, i);
          times.push(performance.now() - began);
          assert.match(
            verdict,
            /printed what the guide says\.$|it prints nothing\.$/,
            `${path}, example ${i + 1}: ${verdict} ${await printed(page, i)}`,
          );
        }
      }
      const sorted = times.toSorted((a, b) => a - b);
      assert.ok(times.length > 60);
      t.diagnostic(
        `${times.length} examples; from the click to the result: median ${sorted[times.length >> 1]!.toFixed(0)} ms, ` +
          `longest ${sorted.at(-1)!.toFixed(0)} ms; ${standing} say why they do not run here`,
      );
    });

    test("an example can be edited, and what follows uses it", async () => {
      await open("guides/first-steps.html");
      const editing = (i: number) => `${example(i)}.querySelector(".cm-content")`;
      await page.read(`${example(1)}.querySelectorAll(".bar button")[1].click()`);
      await page.until(`${editing(1)} === document.activeElement`);
      await page.press("Control+End");
      await page.type('houses[0] = 7; console.log("edited", houses[0]);');
      await page.press("Control+Enter");
      await page.until(`/Ran in/.test(${example(1)}.querySelector(".verdict").textContent)`);
      assert.equal(await printed(page, 1), "edited 7\n");
      // The next step has the changed house.
      await runExample(page, 2);
      assert.doesNotMatch(await printed(page, 2), /^-1\.18/);
      // A mistake is shown with its line.
      await page.press("Enter");
      await page.type("const = 1;");
      await page.press("Control+Enter");
      await page.until(`/error/.test(${example(1)}.querySelector(".verdict").textContent)`);
      assert.match(await printed(page, 1), /^SyntaxError: line \d+:/);
      // As it was.
      await page.read(`${example(1)}.querySelectorAll(".bar button")[1].click()`);
      assert.match(await runExample(page, 2), /printed what the guide says/);
    });

    test("an example that does not end can be stopped", async () => {
      await open("guides/first-steps.html");
      await page.read(`${example(0)}.querySelectorAll(".bar button")[1].click()`);
      await page.until(`${example(0)}.querySelector(".cm-content") === document.activeElement`);
      await page.press("Control+End");
      await page.type("for (;;) bn.reset();");
      await page.press("Control+Enter");
      await page.until(`${example(0)}.querySelectorAll(".bar button").length === 3`);
      await page.read(`${example(0)}.querySelectorAll(".bar button")[2].click()`);
      await page.until(`${example(0)}.querySelector(".verdict").textContent === "Stopped."`);
    });

    test("the benchmark measures, draws as it runs, and has a result to copy", async (t) => {
      await open("measure.html");
      await page.until("!document.querySelector('.measure .plain-button').disabled");
      await page.read("document.querySelector('.measure input').click()");
      await page.read("document.querySelector('.measure .plain-button').click()");
      await page.until(
        "document.querySelectorAll('.measure .fill').length > 1 || document.querySelector('.problem')",
        180,
      );
      assert.ok(await page.read("document.querySelector('.measure .result') === null"));
      await page.until("document.querySelector('.measure .result, .measure .problem')", 180);
      const result = await page.read<string>(
        "document.querySelector('.measure .result, .measure .problem').textContent",
      );
      for (const line of result.trim().split("\n")) t.diagnostic(line);
      const rows = result.split("\n").filter((line) => /^\| \w/.test(line));
      assert.equal(rows.length, 6);
      for (const row of rows) {
        const times = [...row.matchAll(/([\d.]+) (?:µs|ms) \|/g)].map(([, time]) => Number(time));
        assert.ok(times.length >= 2 && times.every((time) => time > 0), row);
      }
      assert.match(result, /\d threads/);
      assert.match(result, /TensorFlow\.js, wasm/);
      assert.match(result, /A JavaScript loop takes \d+\.\d\d times as long/);
    });

    test("the pictures compute", async () => {
      await open("how-it-works.html");
      const dots = await page.read<number[]>(
        "[...document.querySelectorAll('.z-dot')].map((dot) => Number(dot.getAttribute('aria-valuenow')))",
      );
      const mean = dots.reduce((sum, z) => sum + z, 0) / dots.length;
      const variance = dots.reduce((sum, z) => sum + (z - mean) ** 2, 0) / dots.length;
      const near = (got: number, wanted: number, by: number) =>
        assert.ok(Math.abs(got - wanted) <= by, `${got}, not ${wanted}`);
      near(await shown(page, "mean"), mean, 0.011);
      near(await shown(page, "variance"), variance, 0.06);
      near(await shown(page, "z-norm"), (dots[0]! - mean) / Math.sqrt(variance), 0.011);
      // One value is moved by keyboard: the mean follows.
      await page.read("document.querySelector('.z-dot').focus()");
      await page.press("ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight");
      near(await shown(page, "mean"), mean + 2 / dots.length, 0.011);

      // γ and β.
      await focusSlider(page, 0, "β");
      await page.press("End");
      near(await shown(page, "z-tilde"), (await shown(page, "z-norm")) + 3, 0.011);

      // In larger mini-batches, companions matter less.
      const spread = async () => (await shown(page, "to")) - (await shown(page, "from"));
      const small = await spread();
      await focusSlider(page, 1, "Examples");
      await page.press("End");
      await pause(100);
      assert.ok((await spread()) < small / 4);

      // What is left of the start after 20 steps.
      near(await shown(page, "left"), 100 * 0.9 ** 20, 0.06);
      await focusSlider(page, 2, "Decay");
      await page.press("End");
      await pause(100);
      near(await shown(page, "left"), 100 * 0.999 ** 20, 0.06);
      assert.ok((await shown(page, "running-mean")) < 1);

      // A single example: one way refuses, the other answers.
      assert.match(
        await page.read<string>("document.querySelector('[data-value=refused]').textContent"),
        /^SingleValueError: x: expected at least two values/,
      );
      near(await shown(page, "served"), 1, 0.05);

      // Exact statistics close the gap of young averages; only adapting closes that of shifted data.
      assert.ok((await shown(page, "running")) > 2);
      assert.ok((await shown(page, "exact")) < 0.3);
      await focusSlider(page, 4, "The data of test time");
      await page.press("End");
      await pause(100);
      assert.ok((await shown(page, "exact")) > 2);
      assert.ok((await shown(page, "adapted")) < 0.5);
    });

    test("the playground answers inside the site, as high as its content", async () => {
      await open("playground.html");
      const inside = "document.querySelector('iframe').contentDocument";
      await page.until(
        `${inside}.querySelector(".card.mini-batch .share")?.textContent.includes("%")`,
      );
      await page.read(`${inside}.querySelectorAll(".examples button")[4].click()`);
      await page.until(`${inside}.querySelector("[data-answer]")?.textContent === "4"`);
      await page.until(
        `Math.abs(${inside}.documentElement.getBoundingClientRect().height - document.querySelector('iframe').clientHeight) <= 1`,
      );
    });

    test("links lead on without loading anew, and the page is told", async () => {
      await open("index.html");
      await page.read("window.stayed = true");
      await page.read("document.querySelector('.doors a[href$=\"how-it-works.html\"]').click()");
      await page.until("document.querySelector('.touch svg') !== null");
      assert.equal(await page.read("window.stayed"), true);
      assert.match(await page.read<string>("document.title"), /^How it works/);
    });

    test("nothing complained, and nothing was missing", () => {
      assert.deepEqual(page.complaints, []);
      assert.deepEqual(host.missing, []);
    });

    if (name === "chromium") {
      test("axe-core objects to nothing, in light and in dark", async () => {
        const objections: string[] = [];
        for (const dark of [false, true]) {
          await page.emulate({ dark });
          for (const path of PAGES) {
            await open(path);
            await pause(300);
            const where = `${path}${dark ? ", dark" : ""}`;
            objections.push(...(await page.objections()).map((each) => `${where}: ${each}`));
          }
        }
        for (const dark of [false, true]) {
          await page.emulate({ dark });
          await open("index.html");
          await page.press("/");
          await page.until(
            "document.querySelector('#localsearch-input') === document.activeElement",
          );
          await page.type("normalization");
          await page.until("document.querySelector('.VPLocalSearchBox .result mark')");
          await pause(300);
          // Results are links inside of options: VitePress' own.
          const own = (await page.objections()).filter((each) => !/^nested-interactive/.test(each));
          objections.push(...own.map((each) => `search${dark ? ", dark" : ""}: ${each}`));
        }
        assert.deepEqual(objections, []);
        await page.emulate({});
      });

      test("on paper there is the text alone", async () => {
        await open("guides/first-steps.html");
        await page.emulate({ print: true, dark: true });
        const seen = (selector: string) =>
          page.read<boolean>(`document.querySelector('${selector}').checkVisibility()`);
        assert.equal(await seen(".VPNav"), false);
        assert.equal(await seen(".VPSidebar"), false);
        assert.equal(await seen(".example .bar"), false);
        assert.equal(await seen(".vp-doc h1"), true);
        // Dark ink, even where the screen is dark.
        const ink = (selector: string) =>
          page.read<string>(`getComputedStyle(document.querySelector('${selector}')).color`);
        assert.equal(await ink(".vp-doc p"), "rgb(34, 38, 45)");
        for (const word of ["span.line span", "span.line span:last-child"]) {
          const [red, green, blue] = (await ink(`.language-ts ${word}`)).match(/\d+/g)!.map(Number);
          assert.ok(
            0.3 * red! + 0.6 * green! + 0.1 * blue! < 130,
            `${word}: ${red} ${green} ${blue}`,
          );
        }
        await page.emulate({});
      });
    }

    test("where pages are not isolated, threads say which headers they need", async () => {
      const plain = await Host.start({ isolated: false });
      try {
        await page.open(`${plain.url}measure.html`);
        await page.until(
          "/Cross-Origin-Embedder-Policy/.test(document.querySelector('.measure')?.textContent)",
        );
        await page.open(`${plain.url}guides/several-cores.html`);
        await page.until(
          "/Cross-Origin-Opener-Policy/.test(document.querySelector('.example .note')?.textContent)",
        );
        assert.equal(await page.read("document.querySelector('.example .run')"), null);
      } finally {
        await plain.close();
      }
    });
  });
}
