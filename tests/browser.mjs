// What the tests of pages in a real Chromium share. Its packages are those of the ground station's page: make test-page.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const installed = createRequire(new URL("../src/ground/page/package.json", import.meta.url));
const { chromium } = installed("playwright-core");
const axe = readFileSync(installed.resolve("axe-core/axe.min.js"), "utf8");

/** A Chromium that asks nobody for anything by itself. */
export const launch = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });

/** Nothing serious is found by axe, which is given to the page by the test: the server forbids scripts of others. */
export async function accessible(page, what) {
  const results = await page.evaluate(`${axe}; axe.run({ resultTypes: ["violations"] })`);
  const serious = results.violations.filter((v) => v.impact === "serious" || v.impact === "critical");
  assert.deepEqual(
    serious.map((v) => `${what}: ${v.id} (${v.nodes.map((n) => n.target.join(" ")).slice(0, 3).join(", ")}) ${v.nodes[0]?.failureSummary ?? ""}`),
    [],
  );
}

/** Nothing is wider than the page. */
export async function fits(page, what) {
  const tooWide = await page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    if (scrollWidth <= clientWidth) return [];
    const out = [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > clientWidth);
    return [`${scrollWidth} px in ${clientWidth}`, ...out.map((e) => `${e.tagName} ${e.className}: ${e.textContent.slice(0, 40)}`)];
  });
  assert.deepEqual(tooWide, [], `${what} scrolls sideways`);
}
