// Takes the pictures of scripts/pictures with Chromium.
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const root = new URL("../", import.meta.url).pathname;
const { chromium } = createRequire(new URL("../demo/bundle/package.json", import.meta.url))("playwright-core");
const [folder] = process.argv.slice(2);
const pictures = join(root, "docs/pictures");
mkdirSync(pictures, { recursive: true });

const named = readdirSync(join(folder, "checkpoints")).filter((name) => name.startsWith("weights_notagen_quickstart"));
if (named.length === 0) throw new Error(`${folder}/checkpoints has no weights of the quickstart`);
const written = (name) => statSync(join(folder, "checkpoints", name)).mtimeMs;
const [weights] = named.sort((one, other) => written(other) - written(one));
const demo = spawn(
  join(root, "target/release/notagen-train"),
  ["demo", "--weights", join(folder, "checkpoints", weights), "--port", "0", "--json", "--device", "cpu"],
  { stdio: ["ignore", "pipe", "inherit"] },
);
const url = await new Promise((resolve, reject) => {
  demo.on("exit", (code) => reject(new Error(`the demo ended with ${code}`)));
  createInterface(demo.stdout).on("line", (line) => {
    const event = JSON.parse(line);
    if (event.event === "listening") resolve(event.url);
  });
});
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 860 } });
  await page.goto(url);
  await page.waitForSelector("body[data-ready]");
  const choice = page.getByLabel("Let the network choose");
  if (await choice.isVisible()) await choice.check();
  await page.click("#settings summary");
  // The first piece that is whole.
  for (let seed = 1; seed <= 10; seed++) {
    for (const [name, value] of Object.entries({ seed, top_k: 9, top_p: 0.6, temperature: 0.8 })) await page.fill(`#${name}`, `${value}`);
    await page.click("#go");
    await page.waitForFunction((seed) => document.querySelector("#history li small")?.textContent.startsWith(`seed ${seed} `), seed);
    const stage = await page.waitForSelector('#stage[data-status="finished"], #stage[data-status="failed"]', { timeout: 180_000 });
    if ((await stage.getAttribute("data-status")) === "finished") break;
  }
  await page.click("#settings summary");
  await page.screenshot({ path: join(pictures, "demo.png") });
  const score = await page.locator("#paper svg").first().evaluate((svg) => svg.outerHTML);
  const sheet = await browser.newPage({ viewport: { width: 860, height: 470 } });
  await sheet.setContent(`<body style="margin: 12px; background: white">${score}`);
  await sheet.screenshot({ path: join(pictures, "score.png") });
  await page.goto(`file://${join(folder, "runs/quickstart/report.html")}`);
  await page.setViewportSize({ width: 1100, height: 1000 });
  await page.screenshot({ path: join(pictures, "report.png") });
} finally {
  await browser.close();
  demo.kill("SIGTERM");
}
