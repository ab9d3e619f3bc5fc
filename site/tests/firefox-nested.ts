// How often Firefox blocks a worker for good while it makes another: `npx tsx tests/firefox-nested.ts`, with 600 as the
// default number of workers of each kind. The scripts are three lines each, and nothing of this package is involved.

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import puppeteer from "puppeteer-core";

const COUNT = Number(process.argv[2] ?? 600);
const PATIENCE = 10_000;

const PAGE = `<!doctype html><title>Workers in workers</title><script>
const url = (text) => URL.createObjectURL(new Blob([text]));
const ANSWER = "postMessage(1)";
const NESTS = "const inner = new Worker(" + JSON.stringify("data:text/javascript," + ANSWER) + "); inner.onmessage = () => postMessage(1)";
function answers(script) {
  return new Promise((resolve) => {
    const worker = new Worker(url(script));
    const end = (well) => { clearTimeout(timer); worker.terminate(); resolve(well); };
    const timer = setTimeout(end, ${PATIENCE}, false);
    worker.onmessage = () => end(true);
  });
}
</script>`;

const server = createServer((_, response) => {
  response.writeHead(200, { "Content-Type": "text/html" }).end(PAGE);
});
await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
const firefox = await puppeteer.launch({
  browser: "firefox",
  executablePath: "/usr/bin/firefox-esr",
  headless: true,
});
const page = await firefox.newPage();
await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
console.log(await firefox.version());
for (const [kind, script] of [
  ["made by the page", "ANSWER"],
  ["that make one themselves", "NESTS"],
]) {
  let blocked = 0;
  for (let i = 0; i < COUNT; i++) if (!(await page.evaluate(`answers(${script})`))) blocked++;
  console.log(`${COUNT} workers ${kind}: ${blocked} never answered`);
}
await firefox.close();
server.close();
