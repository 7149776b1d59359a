// Uses the page as a person does, in Chromium, for test_web.py:
//   node web_page.mjs PLAN.json
// prints what it saw as JSON. It waits for a line after saying "offline?".

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { createRequire } from "node:module";
import readline from "node:readline/promises";

const plan = JSON.parse(fs.readFileSync(process.argv[2]));
const require = createRequire(path.join(plan.modules, "here.js"));
const { chromium } = require("playwright-core");
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update",
  "--disable-sync",
];

async function open(url, { flags = [], permissions = [] } = {}) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "web-page-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: plan.chromium,
    headless: true,
    viewport: { width: 1280, height: 900 },
    args: [...FLAGS, ...flags],
  });
  await context.grantPermissions(permissions);
  const page = context.pages()[0];
  page.setDefaultTimeout(60000);
  const close = async () => {
    await context.close();
    fs.rmSync(profile, { recursive: true, force: true });
  };
  await page.goto(url);
  await page.waitForFunction(() =>
    document.querySelector("#best").textContent === "Ready" ||
    !document.querySelector("#message").hidden);
  return { page, close };
}

async function settle(page) {
  // The page takes up what is done to it in turn, so this comes after.
  await page.waitForTimeout(20);
  await page.waitForFunction(() => document.body.ariaBusy === "false");
}

/** What the page shows. */
async function look(page) {
  await settle(page);
  return page.evaluate(() => ({
    isolated: crossOriginIsolated,
    message: message.hidden ? "" : message.textContent,
    best: best.textContent,
    model: model.value,
    threads: [...threads.options].map((option) => option.text),
    timing: timing.textContent,
    facts: facts.textContent,
    labels: [...document.querySelectorAll("#bars .label")]
      .map((label) => label.textContent),
    scores: [...document.querySelectorAll("#bars li")]
      .map((row) => Number(row.dataset.score)),
    overflows: document.documentElement.scrollWidth > innerWidth,
  }));
}

const give = (page, id, file) => page.setInputFiles(`#${id}`, file);
const shoot = (page, name) => page.screenshot({
  path: path.join(plan.shots, `${name}.png`), fullPage: true,
});

const seen = {};
const first = await open(plan.url);
const { page } = first;
seen.start = await look(page);
seen.models = {};
for (const name of plan.models) {
  await page.selectOption("#model", name);
  seen.models[name] = {};
  for (const picture of plan.pictures) {
    await give(page, "picture", picture);
    seen.models[name][path.basename(picture)] = await look(page);
  }
}
await page.selectOption("#threads", seen.start.threads.at(-1));
seen.threads = await look(page);
await shoot(page, "wide");
seen.wrong = {};
for (const [id, file] of plan.wrong) {
  await give(page, id, file);
  seen.wrong[path.basename(file)] = await look(page);
}
await page.click("#camera");
seen.noCamera = await look(page);
await shoot(page, "message");
await page.setViewportSize({ width: 390, height: 844 });
await give(page, "picture", plan.pictures[0]);
seen.narrow = await look(page);
await shoot(page, "narrow");
await give(page, "file", plan.local);
seen.local = await look(page);

console.log("offline?");
const lines = readline.createInterface({ input: process.stdin });
await new Promise((resolve) => lines.once("line", resolve));
lines.close();
await page.reload();
await page.waitForFunction(() => best.textContent === "Ready");
await give(page, "picture", plan.pictures[0]);
seen.offline = await look(page);
await first.close();

// A server without the headers, and a camera that shows a test picture.
const second = await open(plan.plain, {
  flags: ["--use-fake-device-for-media-stream"], permissions: ["camera"],
});
seen.plain = await look(second.page);
await second.page.click("#camera");
await second.page.waitForFunction(() =>
  timing.textContent.includes("median of 3"));
seen.camera = await look(second.page);
await shoot(second.page, "camera");
await second.close();
console.log(JSON.stringify(seen));
