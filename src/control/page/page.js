// The page of the box. Asks `/status` once a second and shows it; nothing is kept here.
"use strict";

const EACH = 1000;
const MARKS = { fit: "✓", attention: "!", unfit: "✕", stopping: "…", safe: "✓", waiting: "…" };
const WATCH = { off: "Off", transit: "Transit", online: "On line", circling: "Circling" };
const GLARE = { none: "None", slight: "Slight", moderate: "Moderate", severe: "Severe" };
const DECISION = { identified: "identified", uncertain: "possible: a person decides" };
const CLOCK = { satellite: "by satellites", network: "kept right by the network", unsynchronised: "not kept right yet",
  unset: "not set yet", corrected: "put right" };
const WEATHER = [
  ["beaufort", "Beaufort", [0, 1, 2, 3, 4, 5, 6, 7].map((b) => [b, String(b)])],
  ["visibilityKilometers", "Visibility, km", [1, 2, 5, 10, 20].map((km) => [km, String(km)])],
  ["cloudPercent", "Cloud, %", [0, 25, 50, 75, 100].map((c) => [c, String(c)])],
  ["glareLeft", "Glare left", Object.entries(GLARE)],
  ["glareRight", "Glare right", Object.entries(GLARE)],
];
// So many sightings are shown at first.
const FEW = 6;
// What can be turned by steps, by its name in the settings.
const STEPS = ["exposure", "gain"];

const at = (id) => document.getElementById(id);
const make = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
};

const counted = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

let sayTimer;
function say(text) {
  at("said").textContent = text;
  clearTimeout(sayTimer);
  if (text) sayTimer = setTimeout(() => say(""), 6000);
}

async function send(method, path, body) {
  try {
    const answer = await fetch(path, { method, headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body) });
    if (!answer.ok) {
      const said = await answer.json().catch(() => ({}));
      say(`Not done: ${said.error ?? answer.statusText}`);
      return false;
    }
    say("");
    await look();
    return true;
  } catch {
    say("Not done: the box does not answer. Try again.");
    return false;
  }
}

// A row of buttons of which one is pressed.
function choices(place, values, set, small) {
  if (place.childElementCount === 0) {
    if (small) place.classList.add("small");
    for (const [value, label] of values) {
      const button = make("button", { type: "button" }, label);
      button.dataset.value = JSON.stringify(value);
      button.addEventListener("click", () => set(button.getAttribute("aria-pressed") === "true", value));
      place.append(button);
    }
  }
  return (chosen) => {
    for (const button of place.children) {
      button.setAttribute("aria-pressed", String(button.dataset.value === JSON.stringify(chosen)));
    }
  };
}

function showEffort(effort, marks) {
  at("watch").hidden = at("weather").hidden = !effort;
  if (!effort) return;
  choices(at("watch-states"), Object.entries(WATCH), (_, watch) => send("PUT", "/effort", { watch }))(effort.watch);
  at("marks").textContent = marks ? `${marks} marked so far` : "";
  for (const [field, label, values] of WEATHER) {
    let row = at(`weather-${field}`);
    if (!row) {
      row = make("div", { id: `weather-${field}`, className: "choices" });
      at("weather-rows").append(make("div", { role: "group", "aria-label": label }, make("h3", {}, label), row));
    }
    // Pressed again, it is taken back.
    choices(row, values, (pressed, value) => send("PUT", "/effort", { [field]: pressed ? null : value }),
      !field.startsWith("glare"))(effort[field]);
  }
}

function showCamera(camera, tick) {
  let card = at(`camera-${camera.name}`);
  if (!card) {
    card = make("article", { id: `camera-${camera.name}`, className: "camera" },
      make("h3", {}, camera.name), make("div", { className: "no-picture" }, "No picture yet"),
      make("p", { className: "quiet" }), make("div", { className: "troubles" }), make("div", { className: "settings" }));
    at("camera-list").append(card);
  }
  const picture = card.children[1];
  if (camera.hasPreview) {
    let image = picture;
    if (image.tagName !== "IMG") {
      image = make("img", { alt: `What camera ${camera.name} sees` });
      picture.replaceWith(image);
    }
    image.src = `/cameras/${encodeURIComponent(camera.name)}/preview?${tick}`;
  }
  card.children[2].textContent = [camera.format, counted(camera.captured, "frame"),
    camera.lost ? `${camera.lost} lost` : null].filter(Boolean).join(" · ");
  card.children[3].replaceChildren(...camera.problems.map((said) => make("p", { className: "trouble" }, said)));
  if (camera.settings) showSettings(card.children[4], camera);
}

function showSettings(place, camera) {
  const path = `/cameras/${encodeURIComponent(camera.name)}/settings`;
  for (const name of STEPS) {
    let row = place.querySelector(`[data-setting="${name}"]`);
    if (!row) {
      const value = () => Number(row.dataset.value);
      const step = (by) => () => send("PUT", path, {
        [name]: Number.isFinite(value()) ? Math.max(0, Math.round(value() * by) + (by > 1 ? 1 : -1)) : 50 });
      const button = (label, words, act) => {
        const made = make("button", { type: "button", "aria-label": `${words} ${name} of camera ${camera.name}` }, label);
        made.addEventListener("click", act);
        return made;
      };
      row = make("div", { className: "setting", "data-setting": name }, make("output"),
        button("−", "less", step(0.8)), button("+", "more", step(1.25)),
        button("Auto", "automatic", () => send("PUT", path, { [name]: "auto" })));
      place.append(row);
    }
    const value = camera.settings[name];
    row.dataset.value = value ?? "";
    row.querySelector("output").textContent = `${name}: ${value ?? "as the camera has it"}`;
  }
}

function certainty(sighting) {
  const first = sighting.candidates[0];
  if (sighting.decision === "unknown") return `${percent(sighting.unknownProbability)} not in the catalogue`;
  return first ? `${percent(first.probability)} ${DECISION[sighting.decision] ?? sighting.decision}` : "";
}

function percent(share) {
  return share === undefined || share === null ? "" : `${Math.round(share * 100)} %`;
}

function name(sighting) {
  return sighting.organismID ?? sighting.provisionalID ?? sighting.candidates[0]?.organismID ?? "Whale";
}

let all = false;
function showSightings(sightings) {
  at("no-sightings").hidden = sightings.length > 0;
  at("more").hidden = sightings.length <= FEW;
  at("more").textContent = all ? `Show the last ${FEW} alone` : `Show all ${sightings.length}`;
  const shown = all ? sightings : sightings.slice(0, FEW);
  at("sighting-list").replaceChildren(...shown.map((sighting) => {
    const time = `${sighting.eventDate.slice(11, 19)} UTC`;
    const picture = sighting.hasCrop
      ? make("img", { src: `/sightings/${sighting.occurrenceID}/crop`, alt: `Head of ${name(sighting)}` })
      : make("span", { className: "no-picture" }, "No picture");
    return make("li", {}, picture, make("div", {}, make("strong", {}, name(sighting)),
      make("p", {}, certainty(sighting)),
      make("p", { className: "quiet" }, `${time} · ${sighting.camera ?? ""} · ${counted(sighting.framesSeen ?? 1, "frame")}`)));
  }));
}

function bytes(n) {
  return n >= 1e9 ? `${(n / 1e9).toFixed(1)} GB` : `${Math.round(n / 1e6)} MB`;
}

function showBox(health) {
  at("problems").replaceChildren(...(health.problems ?? []).map((problem) =>
    make("li", {}, make("strong", {}, problem.part), `: ${problem.reason}`)));
  const { queues, link, hardware, position, clock, frames, engine } = health;
  const hot = Object.entries(hardware?.temperaturesCelsius ?? {}).sort((a, b) => b[1] - a[1])[0];
  const facts = [
    ["Frames looked at", `${frames.identified} of ${frames.captured}`],
    ["Waiting to be sent", `${queues.sightings} messages, ${queues.crops} pictures`],
    ["Acknowledged", `${link.acknowledged} messages`],
    position && ["Position", position.fixAgeSeconds === undefined ? "no fix" : `fix ${Math.round(position.fixAgeSeconds)} s old`],
    clock && ["Clock", CLOCK[clock.timeQuality] ?? clock.timeQuality],
    ...(hardware?.disks ?? []).map((disk) => [`Disk of the ${disk.holds}`, `${bytes(disk.freeBytes)} of ${bytes(disk.totalBytes)} free`]),
    hot && ["Hottest", `${hot[1].toFixed(0)} °C (${hot[0]})`],
    hardware?.powerMode && ["Power mode", hardware.powerMode],
    hardware?.overCurrentEvents && ["Slowed by over-current", `${hardware.overCurrentEvents} times`],
    health.archive && ["Kept pictures", `${counted(health.archive.frames, "frame")}, ${counted(health.archive.crops, "crop")}`],
    ["Networks", engine.name],
    ["Bundle", engine.bundle],
    ["Program", `${health.programVersion}, ${health.platform}`],
  ];
  at("facts").replaceChildren(...facts.filter(Boolean).flatMap(([term, said]) => [make("dt", {}, term), make("dd", {}, said)]));
}

function showFitness(level, sentence) {
  at("fitness").dataset.level = level;
  at("fitness-mark").textContent = MARKS[level];
  if (at("fitness-sentence").textContent !== sentence) at("fitness-sentence").textContent = sentence;
  document.title = `${MARKS[level]} Callosity`;
}

let last = "waiting";
let tick = 0;
async function look() {
  let status;
  try {
    const answer = await fetch("/status", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    status = await answer.json();
  } catch {
    // After an ordered stop the box is silent, and that is as it should be.
    if (last !== "safe") showFitness("unfit", "The box does not answer. Is it switched on, and this tablet in its network?");
    return;
  }
  last = status.fitness.level;
  tick += 1;
  showFitness(last, status.fitness.sentence);
  showEffort(status.effort, status.marks);
  status.cameras.forEach((camera) => showCamera(camera, tick));
  showSightings(status.sightings);
  showBox(status.health);
}

at("more").addEventListener("click", () => { all = !all; look(); });
at("mark").addEventListener("click", () => send("POST", "/marks", null));
const ask = (asked) => { at("stop-question").hidden = !asked; at("stop").hidden = asked; at(asked ? "stop-no" : "stop").focus(); };
at("stop").addEventListener("click", () => ask(true));
at("stop-no").addEventListener("click", () => ask(false));
at("stop-yes").addEventListener("click", async () => { if (await send("POST", "/stop", { stop: true })) at("stop-question").hidden = true; });

look();
setInterval(look, EACH);
