// What reviewers do, in a real Chromium: node test/page.mjs LINK PICTURES
// LINK is the invitation of a station with a flight (tests/ground.rs starts it); pictures of the pages go to PICTURES.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { accessible, fits, launch } from "../../../../tests/browser.mjs";

const [link, pictures] = process.argv.slice(2);
const { origin } = new URL(link);
mkdirSync(pictures, { recursive: true });

const browser = await launch();
const elsewhere = [];
const complaints = [];

/** A browser of its own, as of another person. */
async function person(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1920, height: 1080 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== origin && !request.url().startsWith("data:")) elsewhere.push(request.url());
  });
  page.on("console", (message) => {
    // Refused decisions, and requests without session or right, are answered so.
    if (message.type() === "error" && !/status of (401|403|409)|ERR_FAILED/.test(message.text())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  return page;
}

const api = (page, path) => page.evaluate((path) => fetch(path).then((r) => r.json()), path);
const shownId = (page) => page.evaluate(() => location.hash.split("/")[1]);
const step = (what) => console.log(`- ${what}`);

async function until(what, isSo) {
  for (let i = 0; i < 200; i++) {
    if (await isSo()) return;
    await new Promise((done) => setTimeout(done, 100));
  }
  assert.fail(`waited in vain: ${what}`);
}

// --- the first start ---------------------------------------------------------------------------

step("the link of the first start makes an administrator, once");
const ana = await person();
await ana.goto(link);
await accessible(ana, "entrance");
await ana.getByLabel("Name").fill("Ana");
await ana.getByLabel("Password").fill("a long enough password");
await ana.getByRole("button", { name: "Make my account" }).click();
await ana.getByRole("heading", { name: "Sightings" }).waitFor();
const used = await person();
await used.goto(link);
await used.getByText("was used already").waitFor();
await used.context().close();

step("aircraft and sightings are shown, and new ones arrive without reload");
await ana.getByText("N57RW").first().waitFor();
await ana.getByText("on line").first().waitFor();
const count = () => ana.locator(".arrivals li").count();
await until("all sightings", async () => (await count()) >= 14);
const before = await count();
await until("one more", async () => (await count()) > before);
step("the list stands still while somebody points at it");
await ana.locator(".arrivals li").nth(3).hover();
const held = await count();
await ana.getByRole("button", { name: /new sighting/ }).waitFor();
assert.equal(await count(), held);
await ana.mouse.move(300, 700);

step("a watch that is set here is asked of the aircraft, which does not answer");
await ana.getByLabel("Watch").selectOption("circling");
await ana.getByText("waits for the aircraft's answer").waitFor();

// --- review, by keyboard alone -------------------------------------------------------------------

step("the most doubtful sighting comes first; Enter confirms it and the next one is shown");
await ana.goto(`${origin}/#review`);
await ana.getByRole("heading", { name: "Who it may be" }).waitFor();
const queue = await api(ana, "/api/sightings?order=review");
assert.deepEqual(
  queue.map((s) => s.doubt),
  queue.map((s) => s.doubt).toSorted((a, b) => b - a),
);
const named = queue.filter((s) => s.proposal !== "unknown");
const first = named[0];
await ana.goto(`${origin}/#review/${first.id}`);
await ana.getByRole("button", { name: `It is ${first.leading}` }).waitFor();
await ana.keyboard.press("Enter");
await until("the next one", async () => (await shownId(ana)) !== first.id);
const standing = async (id) => (await api(ana, `/api/sightings/${id}`)).summary.standing;
assert.deepEqual([(await standing(first.id)).animal, (await standing(first.id)).person], [first.leading, "Ana"]);

step("correct: another animal, by name");
await ana.goto(`${origin}/#review/${first.id}`);
await ana.getByText("decided by Ana").waitFor();
await ana.keyboard.press("o");
await ana.locator("dialog[open] input").waitFor();
const other = (await api(ana, "/api/animals")).find((a) => a.name !== first.leading).name;
await ana.locator("dialog[open] input").fill(other.toUpperCase());
await ana.keyboard.press("Enter");
await until("the correction", async () => (await standing(first.id))?.animal === other);

step("undo, twice: first the machine's name stands again, then nothing");
await ana.goto(`${origin}/#review/${first.id}`);
await ana.locator(".stands", { hasText: other }).waitFor();
await ana.keyboard.press("u");
await ana.locator(".stands", { hasText: first.leading }).waitFor();
assert.equal((await standing(first.id)).animal, first.leading);
await ana.keyboard.press("u");
await ana.locator(".stands").waitFor({ state: "detached" });
assert.equal(await standing(first.id), null);
assert.equal((await api(ana, `/api/sightings/${first.id}`)).history.length, 4);

step("not in the catalogue, with a name for the time being and a note");
const stranger = queue.find((s) => s.proposal === "unknown");
await ana.goto(`${origin}/#review/${stranger.id}`);
await ana.getByRole("heading", { name: stranger.provisionalId }).waitFor();
await ana.keyboard.press("m");
await ana.keyboard.type("A scar at the left lip");
await ana.keyboard.press("Escape");
await ana.keyboard.press("n");
await ana.locator("dialog[open] input").fill("Foundling");
await ana.keyboard.press("Enter");
await until("the name", async () => (await standing(stranger.id))?.animal === "Foundling");
assert.equal((await api(ana, `/api/sightings/${stranger.id}`)).history[0].note, "A scar at the left lip");

step("one animal's decision does not spill over to the other one of the frame");
const all = await api(ana, "/api/sightings?limit=1000");
const twins = all.filter((s) => all.some((o) => o.id !== s.id && o.time === s.time && o.camera === s.camera && o.flight === s.flight));
assert.equal(twins.length, 2);
await ana.goto(`${origin}/#review/${twins[0].id}`);
await ana.getByText("In the same frame").waitFor();
await ana.getByRole("button", { name: /Not a whale/ }).waitFor();
await ana.keyboard.press("w");
await until("it is decided", async () => (await standing(twins[0].id))?.verdict === "notAWhale");
assert.equal(await standing(twins[1].id), null);

// --- animals -----------------------------------------------------------------------------------------

step("an animal is found by its name, with its photographs and all that is known of where and when it was");
await ana.getByRole("link", { name: "Animals" }).click();
await ana.getByRole("heading", { name: "Animals" }).waitFor();
const catalogue = await api(ana, "/api/animals");
const list = ana.locator(".animals .queue li");
await until("all animals", async () => (await list.count()) === catalogue.length);
const named0 = catalogue.find((a) => a.references > 1);
await ana.getByLabel("Name").fill(named0.name.toUpperCase());
await until("one by its name", async () => (await list.count()) < catalogue.length || catalogue.length === 1);
await list.filter({ hasText: named0.name }).first().getByRole("link").click();
await ana.locator(".photographs img").first().waitFor();
assert.equal(await ana.locator(".photographs img").count(), named0.references);

step("one that was named here has the sighting by which it got its name, on the map and in time");
await ana.getByLabel("Name").fill("");
await ana.getByLabel("in no catalogue only").check();
await until("Foundling alone", async () => (await list.count()) === 1);
await list.getByRole("link").click();
await ana.getByText("Confirmed by a person: 1 sighting.").waitFor();
assert.deepEqual(await ana.locator(".animals .arrivals a").evaluateAll((links) => links.map((a) => a.hash)), [`#review/${stranger.id}`]);
await ana.locator(".animals .map .dot").click();
await until("the sighting in review", async () => (await shownId(ana)) === stranger.id);

step("an animal that nobody has named is said to be none");
await ana.goto(`${origin}/#animals/${encodeURIComponent("Moby 100%")}`);
await ana.getByText("No animal is called Moby 100%").waitFor();

// --- two reviewers -------------------------------------------------------------------------------

step("a reviewer is invited, and may not manage");
await ana.goto(`${origin}/#people`);
await ana.getByRole("button", { name: /as reviewer/ }).click();
const invited = await ana.locator("code").textContent();
await accessible(ana, "people");
const ben = await person();
await ben.goto(invited);
await ben.getByLabel("Name").fill("Ben");
await ben.getByLabel("Password").fill("another long password");
await ben.getByRole("button", { name: "Make my account" }).click();
await ben.getByRole("link", { name: "Review" }).waitFor();
assert.equal(await ben.getByRole("link", { name: "People" }).count(), 0);
assert.equal(await ben.evaluate(() => fetch("/api/accounts").then((r) => r.status)), 403);

step("two reviewers on one sighting: the second is shown the first's decision, and nothing is overwritten");
const both = named[1];
// What the first decides does not reach the second's page in time.
await ben.route("**/api/events", (route) => route.abort());
await ben.goto(`${origin}/#review/${both.id}`);
await ben.reload();
await ben.getByRole("button", { name: /Cannot tell/ }).waitFor();
await ana.goto(`${origin}/#review/${both.id}`);
await ana.getByRole("button", { name: `It is ${both.leading}` }).waitFor();
await ana.keyboard.press("Enter");
await until("Ana's decision", async () => (await standing(both.id)) !== null);
await ben.keyboard.press("t");
const conflict = ben.locator(".conflict");
await conflict.getByText("Somebody else was first").waitFor();
await conflict.getByText("Ana", { exact: false }).first().waitFor();
assert.equal((await standing(both.id)).person, "Ana");
await accessible(ben, "conflict");
await ben.screenshot({ path: `${pictures}/conflict.png` });
await conflict.getByRole("button", { name: /Decide anyway/ }).click();
await until("Ben's decision", async () => (await standing(both.id)).person === "Ben");
assert.deepEqual(
  (await api(ana, `/api/sightings/${both.id}`)).history.map((d) => [d.person, d.verdict]),
  [["Ana", "identified"], ["Ben", "cannotTell"]],
);

step("a decision of somebody else arrives without reload");
const live = named[2];
await ana.goto(`${origin}/#review/${live.id}`);
await ana.getByRole("button", { name: /Cannot tell/ }).waitFor();
await ben.evaluate(
  ([id, revision]) =>
    fetch(`/api/sightings/${id}/decisions`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ revision, decisions: 0, verdict: "cannotTell", possible: true }),
    }),
  [live.id, live.revision],
);
await ana.getByText("decided by Ben").waitFor();
await ben.context().close();

// --- pictures, and who needs other means to read ---------------------------------------------------

const picked = named[3];
const pages = [
  ["now", "#now", ".arrivals li"],
  ["review", `#review/${picked.id}`, ".candidates img"],
  ["animals", `#animals/${encodeURIComponent(first.leading)}`, ".photographs img"],
  ["health", "#health", ".health .grid"],
];
const storage = await ana.context().storageState();
for (const colorScheme of ["light", "dark"]) {
  for (const [width, height] of [[360, 780], [1024, 768], [1920, 1080]]) {
    const page = await person({ viewport: { width, height }, colorScheme, storageState: storage });
    for (const [name, hash, ready] of pages) {
      await page.goto(`${origin}/${hash}`);
      await page.reload();
      await page.locator(ready).first().waitFor();
      await page.evaluate(() => document.querySelectorAll(".window img, .candidates img").forEach((i) => i.decode?.().catch(() => {})));
      await page.waitForTimeout(700);
      await fits(page, `${name} at ${width}`);
      await accessible(page, `${name} ${width} ${colorScheme}`);
      await page.screenshot({ path: `${pictures}/${name}-${width}-${colorScheme}.png`, fullPage: width === 360 });
    }
    await page.context().close();
  }
}
step("pages fit at 360, 1024 and 1920 px, light and dark, without serious findings of axe");

step("logging out ends the session");
await ana.goto(`${origin}/#now`);
await ana.getByRole("button", { name: "Log out" }).click();
await ana.getByRole("button", { name: "Log in" }).waitFor();
assert.equal(await ana.evaluate(() => fetch("/api/sightings").then((r) => r.status)), 401);

step("what does not keep to the policy is not loaded");
const refused = await ana.evaluate(
  () =>
    new Promise((done) => {
      addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
      fetch("https://elsewhere.example/").catch(() => {});
    }),
);
assert.equal(refused, "connect-src");

await browser.close();
assert.deepEqual(elsewhere, [], "requests to other hosts");
assert.deepEqual(complaints.filter((c) => !/elsewhere\.example/.test(c)), [], "what the browser complains of");
console.log("the page does what it should");
