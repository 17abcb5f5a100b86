// Keeps the figures current. The server sends the texts as it renders them; times are counted by the server's clock.
const EVERY_MS = 2000;
const HIDDEN_EVERY_MS = 10_000;
const TIMEOUT_MS = 8000;
const STALE_AFTER_MS = 8000;

const step = document.getElementById("step");
const link = document.getElementById("link");
let clock = Number(document.body.dataset.clock) * 1000;
let receivedAt = performance.now();
let received = false;

function put(place, text) { if (place.textContent !== text) place.textContent = text; }

function show(texts) {
  clock = texts.clock * 1000;
  receivedAt = performance.now();
  received = true;
  document.querySelector("main").dataset.tone = texts.tone;
  document.querySelector("[data-health]").dataset.tone = texts.health_tone;
  for (const place of document.querySelectorAll("[data-f]")) put(place, texts[place.dataset.f]);
  const title = texts.event || texts.room;
  put(document.querySelector("[data-f=event]"), title);
  document.title = `${title} · Waitroom`;
  document.querySelector("[data-phase]").hidden = !texts.event;
  document.querySelector("[data-gap]").hidden = !texts.step;
  document.querySelector("[data-f=problem]").hidden = !texts.problem;
  step.dateTime = texts.step_at;
  tick();
}

function tick() {
  const age = performance.now() - receivedAt;
  const at = step.dateTime;
  step.title = at;
  put(step, at ? `in ${countdown(Date.parse(at) - clock - age)}` : "");
  const old = age > STALE_AFTER_MS;
  document.body.toggleAttribute("data-old", old);
  const time = new Date(clock).toLocaleTimeString();
  put(link, old ? `No connection. As of ${time}.` : received ? "Live" : "Connecting");
}

async function load() {
  let wait = document.hidden ? HIDDEN_EVERY_MS : EVERY_MS;
  try {
    const answer = await fetch(`${location.pathname}/figures`, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (answer.ok) show(await answer.json());
    else if (answer.status === 404) { location.reload(); return; }
    else wait = 1000 * (Number(answer.headers.get("Retry-After")) || 5);
  } catch { /* shown by its age */ }
  setTimeout(load, wait);
}

tick();
load();
setInterval(tick, 1000);
document.addEventListener("visibilitychange", tick);
