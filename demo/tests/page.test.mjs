// The page in a real browser, on a small network: choose, compose, stop, go on, hear, keep, come back by a link.
// scripts/test-demo runs it.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";

const root = new URL("../../", import.meta.url).pathname;
const { chromium } = createRequire(new URL("../bundle/package.json", import.meta.url))("playwright-core");
const folder = mkdtempSync(join(tmpdir(), "demo-"));
const weights = join(root, "model/tests/golden/greedy.pth");
const QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

/** A server with three prompts to choose from; its lines, and how it ended. */
async function serve(...more) {
  const prompts = join(folder, "prompts.txt");
  writeFileSync(prompts, "Baroque_Bach, Johann Sebastian_Choral\nBaroque_Bach, Johann Sebastian_Keyboard\nRomantic_Chopin, Frederic_Keyboard\n");
  const args = ["demo", "--weights", weights, "--port", "0", "--json", "--device", "cpu", "--at-once", "3", "--prompts", prompts, ...more];
  const child = spawn(join(root, "target/release/notagen-train"), args, { env: { ...process.env, OMP_NUM_THREADS: "1" }, stdio: ["ignore", "pipe", "inherit"] });
  const stop = (signal = "SIGTERM") => child.kill(signal);
  stops.push(stop);
  const lines = [];
  const ended = new Promise((resolve) => child.on("exit", (code) => resolve(code)));
  const url = await new Promise((resolve, reject) => {
    ended.then((code) => reject(new Error(`the server ended with ${code}`)));
    createInterface(child.stdout).on("line", (line) => {
      lines.push(JSON.parse(line));
      if (lines.at(-1).event === "listening") resolve(lines.at(-1).url);
    });
  });
  return { url, lines, ended, stop };
}

let server, browser;
const stops = [];
before(async () => {
  server = await serve();
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: QUIET });
});
after(async () => {
  await browser?.close();
  for (const stop of stops) stop();
});

/** A visitor's page; it may ask the server alone, and nothing on it may fail. */
async function visit({ path = "", url = server.url, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, acceptDownloads: true, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(error.message));
  page.on("console", (message) => { if (message.type() === "error") page.faults.push(message.text()); });
  page.on("request", (request) => { if (!/^(http:\/\/127\.0\.0\.1:|data:|blob:)/.test(request.url())) page.faults.push(request.url()); });
  await page.goto(url + path);
  await page.waitForSelector("body[data-ready]");
  return page;
}

async function leave(page) {
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

// The small network knows no prompts.
const set = async (page, settings) => {
  await page.getByLabel("Let the network choose").check();
  if (!(await page.locator("#settings").evaluate((box) => box.open))) await page.click("#settings summary");
  for (const [name, value] of Object.entries({ top_k: "3", ...settings })) await page.fill(`#${name}`, value);
  await page.selectOption("#max_patches", "128");
};
const status = (page, wanted) => page.waitForSelector(`#stage[data-status="${wanted}"]`);
const text = (page) => page.locator("#text").textContent();
const bars = async (page) => Number(await page.locator("#sheet").getAttribute("data-bars"));

test("choose, watch it grow, hear it, keep it", async () => {
  const page = await visit();
  await page.getByLabel("Romantic").check();
  assert.deepEqual(await page.locator("#composer option").allTextContents(), ["Chopin, Frederic"]);
  await page.getByLabel("Baroque").check();
  assert.deepEqual(await page.locator("#instrumentations label").allTextContents(), ["Choral", "Keyboard"]);
  await page.getByLabel("Choral").check();
  // Prompts are Greek to the small network: most of what it writes after one cannot be read, and is complained of. Not this one.
  await page.click("#settings summary");
  await page.click("#dice");
  assert.match(await page.locator("#seed").inputValue(), /^\d+$/);
  await page.fill("#seed", "0");
  await page.click("#go");
  await page.waitForFunction(() => document.getElementById("text").textContent.startsWith("%Baroque\n%Bach, Johann Sebastian\n%Choral\n"));
  assert.match(page.url(), /prompt=Baroque_Bach%2C\+Johann\+Sebastian_Choral&seed=0&/);
  await status(page, "failed");

  await page.evaluate(() => {
    // Bars that were drawn while the piece was being written.
    window.drawn = new Set();
    new MutationObserver(() => {
      const bars = new Set([...document.querySelectorAll("#paper [data-bar]")].map((one) => one.getAttribute("data-bar"))).size;
      if (document.getElementById("stage").dataset.status === "writing" && bars > 0) window.drawn.add(bars);
    }).observe(document.getElementById("paper"), { childList: true });
  });
  await set(page, { seed: "5", temperature: "0.7" });
  await page.click("#go");
  await page.waitForFunction(() => document.querySelector("#history li small").textContent.startsWith("seed 5 "));
  await status(page, "finished");
  const written = await text(page);
  assert.ok(written.includes("[r:0/"), written);
  assert.ok((await bars(page)) >= 4);
  assert.ok(await page.evaluate(() => window.drawn.size > 0), "it is drawn while it is written");
  const drawn = await page.locator("#paper [data-bar]").evaluateAll((all) => new Set(all.map((one) => one.getAttribute("data-bar"))).size);
  assert.equal(drawn, await bars(page), "every bar is in the drawing");

  await page.click("#play");
  await page.waitForFunction(() => Number(document.getElementById("stage").dataset.position) > 0.5);
  await page.waitForSelector("#paper .playing", { state: "attached" });
  await page.click("#play");
  assert.equal(await page.locator("#play").getAttribute("aria-label"), "Play");
  const loudest = await page.evaluate(async () => {
    const { id } = JSON.parse(sessionStorage.getItem("visit")).kept[0];
    const midi = await (await fetch(`api/pieces/${id}/midi`)).arrayBuffer();
    const worker = new Worker("synth.js", { type: "module" });
    const call = (task, rest) => new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data.result));
      worker.postMessage({ task, id: 1, ...rest });
    });
    await call("load", { url: "sounds.sf3", rate: 44100 });
    await call("open", { midi });
    await call("seek", { seconds: 0 });
    const [left] = await call("render", { samples: 44100 });
    return left.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
  });
  assert.ok(loudest > 0.005 && loudest <= 1.5, `${loudest}`);

  const kept = {};
  for (const form of ["abc", "musicxml", "midi", "svg"]) {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click(`[data-form="${form}"]`)]);
    assert.match(download.suggestedFilename(), /^free-choice-5\.(abc|musicxml|mid|svg)$/);
    kept[form] = readFileSync(await download.path());
  }
  assert.ok(kept.abc.toString().startsWith("X:1\n%%score") && kept.abc.includes("[V:4]"));
  assert.ok(kept.musicxml.includes("<score-partwise"));
  assert.equal(kept.midi.subarray(0, 4).toString(), "MThd");
  assert.match(kept.svg.toString(), /^<svg [^]*<\/svg>$/);
  await leave(page);
});

test("stop, go on, and by its link the same piece again", async () => {
  const page = await visit();
  await set(page, { seed: "0", temperature: "0.7" });
  await page.selectOption("#max_patches", "512");
  // The small network is quick: the button is pressed as soon as there is a bar.
  await page.evaluate(() => {
    const press = new MutationObserver(() => {
      if (Number(document.getElementById("sheet").dataset.bars) < 1) return;
      press.disconnect();
      document.getElementById("stop").click();
    });
    press.observe(document.getElementById("sheet"), { attributes: true });
  });
  await page.click("#go");
  await status(page, "stopped");
  const half = await text(page);
  await page.waitForTimeout(300);
  assert.equal(await text(page), half, "nothing is written while it is stopped");
  await page.click("#resume");
  await status(page, "finished");
  const whole = await text(page);
  assert.ok(whole.startsWith(half) && whole.length > half.length);

  const link = page.url();
  const other = await visit({ path: link.slice(server.url.length) });
  await status(other, "finished");
  assert.equal(await text(other), whole);
  await leave(other);

  const foreign = await visit({ path: link.slice(server.url.length).replace(/weights=\w+/, "weights=0123456789abcdef") });
  assert.match(await foreign.locator("#notice").textContent(), /other weights/);
  assert.equal(await foreign.locator("#seed").inputValue(), "0");
  assert.equal(await foreign.locator("#stage").getAttribute("data-status"), null, "it is not written unasked");
  await leave(foreign);
  await leave(page);
});

test("a score is gone on from, and a wrong one refused with its line", async () => {
  const page = await visit();
  await page.click("#continuing summary");
  const file = (name, body) => page.setInputFiles("#file", { name, mimeType: "text/plain", buffer: Buffer.from(body) });
  const score = "X:1\nL:1/8\nM:4/4\nK:C\nV:1 treble\nV:2 bass\nV:1\nc2 d2 e2 f2 | g8 |]\nV:2\nC4 D4 | [G,?]8 |]\n";
  await file("wrong.abc", score);
  await page.waitForSelector("#upload-error:not([hidden])");
  assert.match(await page.locator("#upload-error").textContent(), /wrong\.abc: line 10/);
  await page.waitForFunction(() => true);
  page.faults = page.faults.filter((fault) => !fault.includes("422"));
  await file("right.abc", score.replace("[G,?]8", "G,8"));
  await page.waitForSelector("#uploaded:not([hidden])");
  assert.match(await page.locator("#uploaded p").textContent(), /right\.abc, 2 bars, 2 voices/);
  await set(page, { seed: "3", temperature: "0.7" });
  await page.click("#go");
  await page.waitForFunction(() => ["finished", "failed"].includes(document.getElementById("stage").dataset.status));
  assert.match(await text(page), /\[r:0\/\d+\]\[V:1\]\s*c2 d2 e2 f2/);
  assert.match(page.url(), /music=/);
  await leave(page);
});

test("the visit is remembered, over a reload too", async () => {
  const page = await visit();
  for (const seed of ["21", "22"]) {
    await set(page, { seed, temperature: "0.7" });
    await page.click("#go");
    await page.waitForFunction((seed) => document.querySelector("#history li small")?.textContent.startsWith(`seed ${seed}`), seed);
    await status(page, "finished");
  }
  await page.locator("#history button").nth(1).click();
  assert.match(await page.locator('#history [aria-current="true"]').textContent(), /seed 21/);
  const first = await text(page);
  await page.waitForTimeout(700);
  await page.reload();
  await status(page, "finished");
  assert.equal(await page.locator("#history button").count(), 2);
  assert.equal(await text(page), first);
  await leave(page);
});

test("keys and screen readers, phone width, light and dark", async () => {
  const page = await visit({ viewport: { width: 360, height: 740 }, colorScheme: "dark" });
  const unnamed = await page.evaluate(() => [...document.querySelectorAll("button, input, select, textarea, summary, progress")]
    .filter((one) => !one.closest("[hidden]") && !(one.getAttribute("aria-label") || one.textContent.trim() || one.labels?.length))
    .map((one) => one.outerHTML));
  assert.deepEqual(unnamed, []);
  await set(page, { seed: "31", temperature: "0.7" });
  // From the last setting on, Tab leads to the button, and Enter presses it.
  await page.focus("#max_patches");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "go");
  await page.keyboard.press("Enter");
  await status(page, "finished");
  assert.match(await page.locator('[role="status"]').textContent(), /\d+ bars?, in/);
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "nothing is wider than the phone");
  const ground = () => page.evaluate(() => Number(getComputedStyle(document.documentElement).backgroundColor.match(/\d+/)[0]));
  assert.ok((await ground()) < 60);
  await page.focus("#theme");
  await page.keyboard.press("Enter");
  assert.ok((await ground()) > 200, "light, as chosen");
  await leave(page);
});

/** A server with a page on it, whose piece waits: with so many before it, it is not over when the server goes. */
async function waiting() {
  const another = await serve();
  const page = await visit({ url: another.url });
  const body = JSON.stringify({ top_k: 1 });
  for (let i = 0; i < 24; i++) await fetch(`${another.url}api/pieces`, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  await set(page, { seed: "1" });
  await page.click("#go");
  await status(page, "queued");
  return { another, page };
}

test("the server stops, and the page says so", async () => {
  const { another, page } = await waiting();
  another.stop();
  await status(page, "lost");
  assert.match(await page.locator("#status").textContent(), /server was stopped/);
  assert.equal(await another.ended, 0);
  assert.deepEqual(another.lines.filter(({ event }) => event === "refused"), []);
  assert.deepEqual(["listening", "queued", "began", "closed"].filter((event) => !another.lines.some((line) => line.event === event)), []);
  await page.context().close();
});

test("the server is gone without a word, and the page finds out", async () => {
  const { another, page } = await waiting();
  another.stop("SIGKILL");
  await status(page, "lost");
  assert.match(await page.locator("#status").textContent(), /server does not answer/);
  await page.context().close();
});
