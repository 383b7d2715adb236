// What an observer does on the box's page, in a real Chromium: node tests/box_page.mjs URL PICTURES
// URL is the page of a box that flies (tests/box.rs starts one); the flight is stopped at the end. Pictures go to PICTURES.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { accessible, fits, launch } from "./browser.mjs";

const [url, pictures] = process.argv.slice(2);
mkdirSync(pictures, { recursive: true });
const browser = await launch();
const complaints = [];
const elsewhere = [];

async function open(width, height, colorScheme) {
  const page = await browser.newPage({ viewport: { width, height }, colorScheme });
  page.setDefaultTimeout(60_000);
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !/^(data|blob):/.test(request.url())) elsewhere.push(request.url());
  });
  await page.goto(url);
  await page.locator("#sighting-list img").first().waitFor();
  await page.locator("#camera-list img").first().waitFor();
  return page;
}

for (const [width, height] of [[360, 800], [1024, 768], [1920, 1080]]) {
  for (const scheme of ["light", "dark"]) {
    const page = await open(width, height, scheme);
    const what = `${width} ${scheme}`;
    await accessible(page, what);
    await fits(page, what);
    // A finger in a shaking cockpit: 44 px are the least of WCAG 2.5.5.
    const small = await page.evaluate(() =>
      [...document.querySelectorAll("button")]
        .map((button) => [button.textContent, button.getBoundingClientRect()])
        .filter(([, box]) => box.width > 0 && (box.width < 44 || box.height < 44))
        .map(([text, box]) => `${text} ${box.width} × ${box.height}`),
    );
    assert.deepEqual(small, [], what);
    await page.screenshot({ path: `${pictures}/box-${width}-${scheme}.png`, fullPage: width < 1000 });
    await page.close();
  }
}
console.log("- each size, light and dark: nothing serious, nothing sideways, no small target");

const page = await open(1024, 768, "light");
const pressed = (name) => page.locator("#watch-states").getByRole("button", { name, exact: true, pressed: true });
await page.locator("#watch-states").getByRole("button", { name: "On line", exact: true }).click();
await pressed("On line").waitFor();
await page.getByRole("button", { name: "Mark this moment" }).click();
await page.getByText("1 marked so far").waitFor();
console.log("- watch and mark, one touch each");

// The keyboard alone.
await page.reload();
await pressed("On line").waitFor();
const focused = () => page.evaluate(() => document.activeElement.textContent);
const reach = async (text) => {
  for (let i = 0; i < 200; i++) {
    if ((await focused()) === text) return;
    await page.keyboard.press("Tab");
  }
  assert.fail(`${text} is not reached by the keyboard`);
};
await reach("Circling");
await page.keyboard.press("Enter");
await pressed("Circling").waitFor();
await reach("Stop the flight …");
await page.keyboard.press("Enter");
await reach("Stop");
await page.keyboard.press("Enter");
await page.getByText("Safe to cut power").waitFor();
await page.screenshot({ path: `${pictures}/box-safe.png` });
console.log("- by keyboard: watch, and an ordered stop until power may be cut");

assert.deepEqual(elsewhere, [], "asked of others");
// The page asks on while the box ends.
assert.deepEqual(complaints.filter((text) => !/ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET/.test(text)), []);
await browser.close();
