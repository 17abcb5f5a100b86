// The room's events: the list as the server renders it, times in the browser's time zone, and the countdown.
import { countdown } from "./countdown.js";
import { focusAgain, listen } from "./page.js";

const page = document.getElementById("page");
const box = document.getElementById("timeline");
const next = document.getElementById("next");
const step = document.getElementById("countdown");
let shown;
let begun = 0;
// The server's clock at a moment of the browser's, which counts on from there.
let clock;
let clockAt;

function localTimes() {
  for (const time of box.querySelectorAll("[data-moment]")) {
    time.textContent = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  }
}

// The list may be replaced while one of its buttons has the focus.
function replace(html) {
  const focused = document.activeElement?.closest("[data-event-action]");
  const open = document.getElementById("past")?.open;
  box.innerHTML = html;
  localTimes();
  const past = document.getElementById("past");
  if (past && open) past.open = true;
  if (focused) focusAgain(focused);
}

async function load() {
  const turn = ++begun;
  const answer = await fetch(`/rooms/${encodeURIComponent(page.dataset.room)}/timeline`, { cache: "no-store" }).catch(() => null);
  const html = answer?.ok ? await answer.text().catch(() => null) : null;
  if (turn !== begun) return;
  if (html === null) shown = undefined; // the next frame tries again
  else replace(html);
}

function tick() {
  const at = step.dateTime;
  if (!at || clock === undefined) return;
  const left = Date.parse(at) - clock - (performance.now() - clockAt);
  step.textContent = `in ${countdown(left)}`;
  step.title = `${new Date(at).toLocaleString()}, ${at.slice(0, 10)} ${at.slice(11, 19)} UTC`;
}

listen(page.dataset.room, (room, texts, _at, seconds) => {
  clock = seconds * 1000;
  clockAt = performance.now();
  next.hidden = !texts.step;
  step.dateTime = texts.step_at;
  if (!texts.step_at) step.textContent = "";
  tick();
  // Also on the first frame: there may be a change since the page was rendered.
  const now = JSON.stringify([room.events_version, room.event]);
  if (now !== shown) { shown = now; load(); }
});

localTimes();
setInterval(tick, 1000);
