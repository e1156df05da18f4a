// The page: watches one source, draws what comes, and passes on what is clicked.

import { act, next } from "./feed.js";
import { Charts } from "./charts.js";
import { List } from "./list.js";
import { View } from "./view.js";

const $ = id => document.getElementById(id);
const SLOW_MS = 250; // lists and charts: faster than this nobody reads
const wanted = new URLSearchParams(location.search).get("source") || "";

const view = new View($("view"));
const list = new List($("objects"), toggle, id => point(id));
const charts = new Charts({
  latency: $("latency"), latencyText: $("latency-text"), legend: $("legend"), age: $("age"), ageText: $("age-text"),
});

let source = wanted, number = 0, sources = [], drawn = 0, failures = 0;
let switched = new AbortController();

const pause = ms => new Promise(done => setTimeout(done, ms));
const own = () => sources.find(item => item.name === source);

function remember(key, value) {
  try {
    if (value === undefined) return localStorage.getItem(key);
    localStorage.setItem(key, value);
  } catch { /* private windows keep nothing */ }
  return null;
}

function toast(text) {
  $("toast").textContent = text;
  $("toast").classList.add("shown");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => $("toast").classList.remove("shown"), 3200);
}

async function attempt(op, details) {
  try {
    return await act(op, source, details);
  } catch (error) {
    toast(error.message);
    return undefined;
  }
}

// What comes

async function watch() {
  for (;;) {
    if (document.hidden) {
      await new Promise(done => document.addEventListener("visibilitychange", done, { once: true }));
      continue;
    }
    const asked = source;
    try {
      const message = await next(asked, number, switched.signal);
      if (asked !== source) continue;
      failures = 0;
      notice("");
      await take(message);
    } catch (error) {
      if (asked !== source) continue;
      failures++;
      if (failures > 1) notice(error instanceof TypeError || error.name === "TimeoutError"
        ? "The engine does not answer. Trying again…" : `${error.message}.`);
      await pause(Math.min(300 * failures, 3000));
    }
  }
}

async function take(message) {
  const { state } = message;
  sources = state.sources;
  showSources();
  if (!own()) {
    if (sources.length) choose(sources[0].name);
    else await pause(500);
    return;
  }
  if (state.frame) {
    number = state.number;
    charts.take(state.samples);
    await view.take(message);
    $("hint").hidden = remember("followed") !== null || !state.frame.objects.length;
  } else if (!view.frame) {
    await pause(200);
  }
  showState();
  const now = performance.now();
  if (now - drawn < SLOW_MS) return;
  drawn = now;
  $("facts").textContent = facts(state);
  charts.draw();
  if (!view.frame) return;
  list.take(view);
  const count = view.frame.objects.length;
  $("count").textContent = count;
  $("nothing").hidden = count > 0 || list.cards.size > 0;
  const followed = view.frame.objects.filter(item => item.followed).length;
  $("view").setAttribute("aria-label", `Live picture of ${source}: ${count} objects, ${followed} followed`);
}

function facts(state) {
  const { frames, dropped } = own();
  const causes = Object.entries(dropped).map(([cause, count]) => `${count} ${cause.replaceAll("_", " ")}`);
  const lost = causes.length ? `dropped: ${causes.join(", ")}` : "none dropped";
  return `${frames} frames, ${lost} · ${state.viewers} watching`;
}

function showSources() {
  const root = $("sources");
  while (root.children.length > sources.length) root.lastChild.remove();
  sources.forEach((item, place) => {
    let chip = root.children[place];
    if (!chip) {
      chip = document.createElement("button");
      chip.type = "button";
      chip.append(document.createElement("span"), document.createElement("small"));
      chip.addEventListener("click", () => choose(chip.dataset.name));
      root.append(chip);
    }
    chip.dataset.name = item.name;
    chip.className = `source ${item.state}`;
    chip.title = item.uri;
    chip.setAttribute("aria-pressed", item.name === source);
    chip.children[0].textContent = item.name;
    chip.children[1].textContent = item.state === "live" ? `${item.fps.toFixed(0)} fps` : item.state;
  });
}

function showState() {
  const { state, fps, age_ms: age } = own();
  $("state").textContent = state;
  $("state").className = `state ${state}`;
  $("rate").textContent = state === "live" && age !== null ? `${fps.toFixed(1)} fps · ${Math.round(age)} ms` : "";
  document.body.classList.toggle("dull", state === "stalled" || state === "reconnecting");
  const paused = state === "paused";
  $("pause").setAttribute("aria-pressed", paused);
  $("pause").querySelector("span").textContent = paused ? "Go on" : "Pause";
  $("pause").disabled = state === "ended";
}

function notice(text) {
  if ($("notice").textContent !== text) $("notice").textContent = text;
  $("notice").hidden = !text;
  if (!text) return;
  $("hint").hidden = true;
  $("state").textContent = "no connection";
  $("state").className = "state lost";
  $("rate").textContent = "";
  document.body.classList.add("dull");
}

function choose(name) {
  if (name === source) return;
  source = name;
  number = 0;
  switched.abort();
  switched = new AbortController();
  view.clear();
  list.clear();
  charts.clear();
  drawn = 0;
  showSources();
}

// What is clicked

async function toggle(object, place) {
  if (object?.followed) {
    if (await attempt("forget", { id: object.id }) !== undefined) toast(`Let go of #${object.id}`);
    return;
  }
  const spot = place || { x: (object.box[0] + object.box[2]) >> 1, y: (object.box[1] + object.box[3]) >> 1 };
  const id = await attempt("track", { id: object?.id ?? null, x: spot.x, y: spot.y });
  if (id === undefined) return;
  remember("followed", "1");
  $("hint").hidden = true;
  toast(`Following it as #${id}. Point at it again to let go.`);
}

function point(id) {
  if (view.hot === id) return;
  view.hot = id;
  list.hot(id);
  view.draw();
}

$("view").addEventListener("click", event => {
  const place = view.at(event);
  if (place) toggle(place.object, place);
});
$("view").addEventListener("pointermove", event => {
  const place = event.pointerType === "mouse" ? view.at(event) : null;
  point(place?.object?.id ?? null);
  $("tip").hidden = !place;
  if (!place) return;
  const { object } = place;
  $("tip").textContent = !object ? "follow what is here"
    : `#${object.id} · ${object.followed ? "followed, click to let go" : `novelty ${object.novelty.toFixed(2)}, click to follow`}`;
  const stage = $("view").parentElement.getBoundingClientRect();
  const left = Math.min(event.clientX - stage.left + 14, stage.width - $("tip").offsetWidth - 8);
  const top = Math.min(event.clientY - stage.top + 18, stage.height - $("tip").offsetHeight - 8);
  $("tip").style.transform = `translate(${left}px, ${top}px)`;
});
$("view").addEventListener("pointerleave", () => {
  point(null);
  $("tip").hidden = true;
});

$("pause").addEventListener("click", () => attempt($("pause").getAttribute("aria-pressed") === "true" ? "resume" : "pause"));
$("masks").addEventListener("click", () => {
  view.masks = !view.masks;
  $("masks").setAttribute("aria-pressed", view.masks);
  view.draw();
});
$("snapshot").addEventListener("click", async () => {
  const taken = await attempt("snapshot");
  if (!taken) return;
  const base = `snapshots/${taken.name}`;
  $("shot-picture").src = `${base}.png`;
  Object.assign($("shot-png"), { href: `${base}.png`, download: `${taken.name}.png` });
  Object.assign($("shot-json"), { href: `${base}.json`, download: `${taken.name}.json` });
  $("shot-text").textContent = `Frame ${taken.frame} of ${source}, ${taken.objects} objects.`;
  $("shot").showModal();
});
$("shot-close").addEventListener("click", () => $("shot").close());
$("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  remember("theme", document.documentElement.dataset.theme = dark ? "light" : "dark");
  charts.draw();
});
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("shot").open) return;
  ({ p: $("pause"), s: $("snapshot"), m: $("masks") })[event.key]?.click();
});

const theme = remember("theme");
if (theme) document.documentElement.dataset.theme = theme;
watch();
