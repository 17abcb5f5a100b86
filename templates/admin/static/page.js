// Keeps the figures current. The server sends the texts as it would render them; the script only inserts them.

const STALE_AFTER_MS = 3500;
const RECONNECT_MS = 2000;
const FLASH_MS = 2600;
const TOAST_MS = 6000;
// Figures that only change when somebody changes the room; they are highlighted.
const HIGHLIGHTED = new Set(["state", "rate", "limit", "message", "pilot", "change"]);

const callbacks = [];
const versions = new Map();
let rooms = [];
let receivedAt = Date.now();
let received = false;
let hideToast;

// Calls back with each room in the API's format, its texts, the server's clock in seconds, and the store's.
export function listen(name, callback) { callbacks.push([name, callback]); }

// Returns a function that loads a path of the API and shows the result, null on failure; the last one started wins.
export function reading(path, show) {
  let begun = 0;
  return async () => {
    const turn = ++begun;
    const read = fetch(path, { cache: "no-store" }).then((answer) => (answer.ok ? answer.json() : null));
    const data = await read.catch(() => null);
    if (turn === begun) show(data);
  };
}

export function toast(text) {
  const box = document.getElementById("toast");
  box.textContent = text;
  clearTimeout(hideToast);
  hideToast = setTimeout(() => { box.textContent = ""; }, TOAST_MS);
}

export function element(tag, text, properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) made.textContent = text;
  return made;
}

// A time in the operator's time zone, with the date unless it is today.
export function moment(at) {
  const when = new Date(at);
  const style = when.toDateString() === new Date().toDateString() ? { timeStyle: "medium" } : { dateStyle: "short", timeStyle: "short" };
  return element("time", when.toLocaleString(undefined, style), { dateTime: at });
}

// Focuses a button again. The list of events may have been rendered again, without it or with another of the same kind.
export function focusAgain(button) {
  let place = button;
  if (!button.isConnected) {
    const { name } = button.closest("[data-name]")?.dataset ?? {};
    const row = name === undefined ? null : document.querySelector(`#timeline [data-name="${CSS.escape(name)}"]`);
    place = row?.querySelector(`[data-event-action=${button.dataset.eventAction}]`);
  }
  (place && !place.hidden ? place : document.getElementById("name")).focus();
}

function put(place, text) {
  if (place.textContent === String(text)) return false;
  place.textContent = text;
  return true;
}

function flash(place) {
  place.classList.remove("flash");
  void place.offsetWidth;
  place.classList.add("flash");
  setTimeout(() => place.classList.remove("flash"), FLASH_MS);
}

function fill(list, made) {
  if (list.textContent !== made.map((each) => each.textContent).join("")) list.replaceChildren(...made);
}

function render(box, texts, changed) {
  box.dataset.tone = texts.tone;
  for (const place of box.querySelectorAll("[data-f]")) {
    const text = texts[place.dataset.f];
    if (text !== undefined && put(place, text) && changed && HIGHLIGHTED.has(place.dataset.f)) flash(place);
  }
  for (const rect of box.querySelectorAll("[data-w]")) rect.setAttribute("width", `${texts[rect.dataset.w]}%`);
  for (const list of box.querySelectorAll("[data-list=needs]")) fill(list, texts.needs.map((each) => element("li", each)));
  for (const list of box.querySelectorAll("[data-list=hints]")) fill(list, (texts.hints || []).map((each) => element("li", each)));
  for (const list of box.querySelectorAll("[data-list=left]")) {
    fill(list, (texts.left || []).map(([reason, number]) => {
      const row = element("div");
      row.append(element("dt", reason), element("dd", number));
      return row;
    }));
  }
  for (const time of box.querySelectorAll("[data-time]")) localTime(time, texts[time.dataset.time]);
}

function localTime(time, at) {
  if (!at) { put(time, ""); return; }
  const moment = new Date(at);
  const today = moment.toDateString() === new Date().toDateString();
  const style = today ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" };
  time.dateTime = at;
  put(time, `at ${moment.toLocaleString(undefined, style)}`);
}

function show({ at, clock, rooms: roomTexts }) {
  receivedAt = Date.now();
  for (const room of rooms) {
    const texts = roomTexts[room.name];
    const known = versions.get(room.name);
    const changed = known !== undefined && known !== room.version;
    versions.set(room.name, room.version);
    for (const box of document.querySelectorAll(`[data-room="${CSS.escape(room.name)}"]`)) {
      if (box.id === "page" && room.state && !box.querySelector(".columns")) location.reload();
      render(box, texts, changed);
      if (changed && box.matches("#page, .room")) toast(`${texts.change_who}: ${texts.change}`);
      if (box.id === "page") document.title = `${texts.waiting} waiting · ${room.name} · Waitroom`;
    }
    for (const [name, callback] of callbacks) if (name === room.name) callback(room, texts, at, clock);
  }
  received = true;
  link();
}

// Shows the age of the figures, so that old ones don't look current.
function link() {
  const age = Date.now() - receivedAt;
  const lost = age > STALE_AFTER_MS;
  const notice = document.getElementById("lost");
  document.getElementById("link").dataset.link = lost ? "lost" : received ? "live" : "waiting";
  put(document.getElementById("link-text"), lost ? `${old(age)} old` : received ? "Live" : "Connecting");
  document.body.toggleAttribute("data-old", lost);
  if (lost && notice.hidden) notice.textContent = "No connection to the gateway. The figures are out of date; reconnecting.";
  notice.hidden = !lost;
}

function old(ms) {
  const seconds = Math.round(ms / 1000);
  return seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}

function connect() {
  const source = new EventSource("/api/v1/events");
  source.addEventListener("rooms", (event) => { rooms = JSON.parse(event.data).rooms; });
  source.addEventListener("shown", (event) => show(JSON.parse(event.data)));
  source.addEventListener("error", async () => {
    // The browser reconnects unless the request was refused.
    if (source.readyState !== EventSource.CLOSED) return;
    const answer = await fetch("/api/v1/rooms", { cache: "no-store" }).catch(() => null);
    if (answer && answer.status === 401) location.reload();
    else setTimeout(connect, RECONNECT_MS);
  });
}

for (const time of document.querySelectorAll("[data-time]")) localTime(time, time.getAttribute("datetime"));
connect();
setInterval(link, 1000);
