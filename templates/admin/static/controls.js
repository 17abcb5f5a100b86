// The controls. Each change carries the version of the room that it is based on. If the room has changed since, the
// operator sees what has changed and reviews the change.
import { element, focusAgain, listen, toast } from "./page.js";
import { waits } from "./waits.js";

const REQUEST_TIMEOUT_MS = 10_000;
// How long the feed may lag behind the response to a change.
const FEED_LAG_MS = 2000;
const PREVIEW_DELAY_MS = 200;

const name = document.getElementById("page").dataset.room;
const path = `/api/v1/rooms/${encodeURIComponent(name)}`;
const start = JSON.parse(document.getElementById("room").textContent);
let room = start.room;
let texts = start.shown;

const $ = (id) => document.getElementById(id);

// The number of changes in progress on this page, and the time of the last response.
let changing = 0;
let answeredAt = 0;

export async function change(...request) {
  changing += 1;
  try {
    return await call(...request);
  } finally {
    changing -= 1;
    answeredAt = Date.now();
  }
}

// Sends a request to the API. Returns the status, and the response or a message.
export async function call(method, where, body, version) {
  const headers = { "Content-Type": "application/json" };
  if (version !== undefined) headers["If-Match"] = `"${version}"`;
  let answer;
  try {
    const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
    answer = await fetch(path + where, { method, headers, body: JSON.stringify(body), signal, cache: "no-store" });
  } catch {
    return { status: 0, problem: "No response. Check whether the change was made before you try again." };
  }
  const data = await answer.json().catch(() => null);
  if (answer.ok) return { status: answer.status, data };
  if (answer.status === 401) return { status: 401, problem: "You are logged out. Log in again; nothing was changed." };
  const message = data && [data.detail, ...Object.values(data.errors || {})].filter(Boolean).join(" ");
  return { status: answer.status, data, problem: message || `Refused (${answer.status}); nothing was changed.` };
}

export function withNote(body, note) { return note ? { ...body, note } : body; }

// Shows what somebody else changed, until the operator has reviewed it.
export function stale(box, now, onReview) {
  const change = now.last_change;
  const what = change ? `${change.who}: ${change.what}.` : "Something has changed.";
  const button = element("button", "Review", { type: "button" });
  button.addEventListener("click", () => { box.hidden = true; onReview(); });
  const note = element("p");
  note.append(element("b", "The room has changed. "), `${what} Your change was not made.`);
  box.replaceChildren(note, button);
  box.hidden = false;
}

export function newest(answered) {
  // The response to a change may arrive before or after the feed's frame.
  if (answered && answered.version >= (room.version ?? 0)) room = answered;
}

export function version() { return room.version; }

// A preview as the API sends it, in paragraphs.
export function effectOf({ summary, warnings }) {
  return [element("p", summary), ...warnings.map((each) => element("p", each, { className: "warning" }))];
}

// The room's numbers, such as the rate.

// Each step is about 20 % more than the one before.
const STEPS = [1, 2, 3, 4, 5, 6, 8];
for (let ten = 10; ten < 1_000_000; ten *= 10) STEPS.push(...[1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8].map((step) => step * ten));

const limits = $("limits");
const knobs = [...limits.querySelectorAll("[data-knob]")].map((box) => ({
  key: box.dataset.knob,
  unit: box.dataset.unit,
  number: box.querySelector("[type=number]"),
  slider: box.querySelector("[type=range]"),
}));
const draftBox = limits.querySelector(".draft");
const apply = draftBox.querySelector("button");
const effect = $("effect");
const hint = effect.firstElementChild;
const reviewed = Object.fromEntries(knobs.map(({ key }) => [key, room[key]]));
let limitsVersion = room.version;
let previews = 0;
let previewTimer;

function nearest(value) {
  return STEPS.reduce((best, step, index) => (
    Math.abs(Math.log(step / value)) < Math.abs(Math.log(STEPS[best] / value)) ? index : best), 0);
}

function slide({ unit, number, slider }) {
  const value = number.valueAsNumber;
  if (!(value > 0)) return;
  slider.value = nearest(value);
  slider.setAttribute("aria-valuetext", `${value.toLocaleString("en")} ${unit}`);
}

// The values that the operator has changed since the last review.
function draft() {
  const changed = {};
  for (const { key, number } of knobs) if (number.valueAsNumber !== reviewed[key]) changed[key] = number.valueAsNumber;
  return changed;
}

// Takes over the room's values. Values that the operator has changed stay.
function syncLimits() {
  const moved = draft();
  for (const knob of knobs) {
    reviewed[knob.key] = room[knob.key];
    if (knob.key in moved) continue;
    knob.number.value = room[knob.key];
    slide(knob);
  }
  limitsVersion = room.version;
}

const dirty = () => !draftBox.hidden;

function resetDraft() {
  for (const { key, number } of knobs) number.value = reviewed[key];
  syncLimits();
  for (const knob of knobs) slide(knob);
  previews += 1;
  $("limits-stale").hidden = true;
  draftBox.hidden = true;
  $("limits-note").value = "";
  effect.replaceChildren(hint);
}

function edited() {
  clearTimeout(previewTimer);
  if (!Object.keys(draft()).length) { resetDraft(); return; }
  draftBox.hidden = false;
  apply.disabled = true;
  if ($("limits-stale").hidden) previewTimer = setTimeout(preview, PREVIEW_DELAY_MS);
}

async function preview() {
  previews += 1;
  const mine = previews;
  if (!limits.checkValidity()) { effect.replaceChildren(element("p", "Enter a number above 0.", { className: "warning" })); return; }
  const answer = await call("PATCH", "?dry_run=true", draft(), limitsVersion);
  if (mine !== previews) return;
  if (answer.status === 412) { refused(answer.data.room); return; }
  if (answer.status !== 200) { effect.replaceChildren(element("p", answer.problem, { className: "warning" })); return; }
  const { now, after } = answer.data.effect;
  const list = element("dl");
  for (const [key, label] of [["newcomer", "Newcomer"], ["middle", "Mid-queue"]]) {
    const row = element("div");
    const cell = element("dd");
    cell.append(element("s", `${waits(now[key])} → `), waits(after[key]));
    row.append(element("dt", label), cell);
    list.append(row);
  }
  effect.replaceChildren(...effectOf(answer.data.effect), list);
  apply.disabled = false;
}

function refused(now) {
  newest(now);
  apply.disabled = true;
  stale($("limits-stale"), room, () => {
    syncLimits();
    knobs[0].number.focus();
    edited();
  });
}

for (const knob of knobs) {
  knob.slider.max = STEPS.length - 1;
  knob.slider.addEventListener("input", () => {
    knob.number.value = STEPS[knob.slider.valueAsNumber];
    slide(knob);
    edited();
  });
  knob.number.addEventListener("input", () => { slide(knob); edited(); });
}
limits.addEventListener("reset", (event) => {
  event.preventDefault();
  resetDraft();
  knobs[0].number.focus();
});
limits.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (apply.disabled) return;
  apply.disabled = true;
  const answer = await change("PATCH", "", withNote(draft(), $("limits-note").value), limitsVersion);
  if (answer.status === 412) { refused(answer.data.room); return; }
  if (answer.status !== 200) {
    effect.replaceChildren(element("p", answer.problem, { className: "warning" }));
    apply.disabled = false;
    return;
  }
  newest(answer.data);
  resetDraft();
  toast("Done. In effect everywhere within a second.");
  knobs[0].number.focus();
});

// The confirmation dialog.

const dialog = $("ask");
const yes = $("ask-yes");
const ACTIONS = {
  pause: { title: "Pause the room?", button: "Pause", body: { state: "paused" } },
  drain: { title: "Drain the room?", button: "Drain", body: { draining: true } },
  close: { title: "Close the room?", button: "Close the room", danger: true, message: true, body: { state: "closed" } },
  sold_out: { title: "Mark as sold out?", button: "Mark as sold out", danger: true, message: true, body: { state: "sold_out" } },
  open: { title: "Reopen the room?", button: "Reopen", message: true, body: { state: "open" } },
  undo: { title: "Undo this change?", button: "Undo", undo: true },
};
let question = null;

// The question's effect is its text or, with a path in `where`, the preview of the request to that path.
export function openDialog(options, opener) {
  question = { ...options, version: room.version, opener };
  $("ask-title").textContent = options.title;
  $("ask-text").textContent = options.text;
  yes.textContent = options.button;
  yes.className = options.danger ? "main danger" : "main";
  yes.disabled = Boolean(options.where);
  $("ask-no").textContent = options.keep ?? "Cancel";
  $("ask-message-row").hidden = !options.message;
  $("ask-message").value = room.message;
  $("ask-note").value = "";
  $("ask-stale").hidden = true;
  $("ask-problem").hidden = true;
  dialog.showModal();
  $("ask-no").focus();
  if (options.where) askPreview();
}

async function askPreview() {
  const mine = question;
  const answer = await call("POST", `${mine.where}?dry_run=true`, {}, mine.version);
  if (mine !== question) return;
  if (answer.status === 412) { askStale(answer.data.room); return; }
  $("ask-problem").textContent = answer.problem ?? "";
  $("ask-problem").hidden = !answer.problem;
  if (answer.problem) return;
  $("ask-text").replaceChildren(...effectOf(answer.data.effect));
  yes.disabled = false;
}

function askStale(now) {
  newest(now);
  yes.disabled = true;
  stale($("ask-stale"), room, () => {
    question.version = room.version;
    if (question.action) $("ask-text").textContent = texts.asks[question.action];
    if (question.where) askPreview();
    else yes.disabled = false;
    $("ask-no").focus();
  });
}

function confirmAction(action, opener) { openDialog({ ...ACTIONS[action], action, text: texts.asks[action] }, opener); }

$("ask-no").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  const { opener } = question;
  question = null;
  focusAgain(opener);
});
dialog.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (yes.disabled || !question) return;
  yes.disabled = true;
  const mine = question;
  const note = $("ask-note").value;
  const body = mine.message && $("ask-message").value !== room.message
    ? { ...mine.body, message: $("ask-message").value } : mine.body;
  const answer = mine.undo ? await change("POST", "/undo", withNote({}, note), mine.version)
    : mine.where ? await change("POST", mine.where, withNote({}, note), mine.version)
      : mine.session ? await change("POST", "/end-session", withNote({ session: mine.session }, note))
        : await change("PATCH", "", withNote(body, note), mine.version);
  if (mine !== question) return;
  if (answer.status === 412) { askStale(answer.data.room); return; }
  if (answer.problem) {
    $("ask-problem").textContent = answer.problem;
    $("ask-problem").hidden = false;
    yes.disabled = false;
    return;
  }
  if (mine.session) $("session").value = "";
  else newest(answer.data);
  dialog.close();
  toast(mine.session ? "Session ended." : "Done. In effect everywhere within a second.");
});

for (const button of document.querySelectorAll("[data-action]")) {
  const { action } = button.dataset;
  button.addEventListener("click", () => {
    if (action === "resume") changeNow(button, { state: "open" }, "Admissions resumed.");
    else confirmAction(action, button);
  });
}

// A change without confirmation.
async function changeNow(control, body, done) {
  control.disabled = true;
  const answer = await change("PATCH", "", body, room.version);
  control.disabled = false;
  if (answer.status === 412) newest(answer.data.room);
  else if (!answer.problem) newest(answer.data);
  toast(answer.status === 412 ? `Not done: the room has changed. Review it and try again. ${room.last_change?.what ?? ""}`
    : answer.problem || done);
}

const pilot = $("pilot");
pilot?.addEventListener("click", () => {
  const on = pilot.getAttribute("aria-checked") !== "true";
  changeNow(pilot, { autopilot: on }, on ? "Autopilot on." : "Autopilot off.");
});

// The message to waiting visitors.

const messageForm = $("message-form");
const message = $("message");
const publishButton = messageForm.querySelector("button");
const clearButton = $("message-away");
let messageVersion = null;

message.addEventListener("input", () => {
  messageVersion ??= room.version;
  publishButton.disabled = message.value === room.message;
  if (publishButton.disabled) messageVersion = null;
});

async function publish(text, version) {
  const answer = await change("PATCH", "", { message: text }, version);
  if (answer.status === 412) {
    newest(answer.data.room);
    messageVersion = room.version;
    toast(`Not published: the room has changed (${room.last_change?.what ?? ""}). Review it and try again.`);
    return;
  }
  if (answer.problem) { toast(answer.problem); return; }
  newest(answer.data);
  messageVersion = null;
  follow();
  toast(text ? "Published: waiting visitors see it within seconds." : "Message cleared.");
}

messageForm.addEventListener("submit", (event) => {
  event.preventDefault();
  publish(message.value, messageVersion ?? room.version);
});
clearButton.addEventListener("click", () => publish("", room.version));

// Single visitor.

$("admit-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await change("POST", "/admit", { ticket: $("ticket").value.trim() });
  if (!answer.problem) $("ticket").value = "";
  toast(answer.problem || "The visitor is called.");
});
$("session-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const session = $("session").value.trim().toLowerCase();
  const text = `Session ${session} ends within a second. Its visitor has to queue again.`;
  openDialog({ title: "End this session?", button: "End session", danger: true, session, text }, $("session"));
});

// Updates from the feed.

function follow() {
  // The autopilot changes the rate without raising the version.
  if (dirty() && limitsVersion === room.version) syncLimits();
  else if (!dirty() && (limitsVersion !== room.version || knobs.some(({ key }) => reviewed[key] !== room[key]))) resetDraft();
  if (messageVersion === null && message.value !== room.message) message.value = room.message;
  publishButton.disabled = message.value === room.message;
  clearButton.hidden = !room.message;
}

listen(name, (next, nextTexts) => {
  const other = next.version !== room.version;
  if (next.version < room.version && Date.now() - answeredAt < FEED_LAG_MS) return;
  room = next;
  texts = nextTexts;
  for (const button of document.querySelectorAll("#actions [data-action]")) button.hidden = !texts.actions.includes(button.dataset.action);
  document.querySelector("[data-action=undo]").hidden = !texts.undoable;
  if (pilot && room.autopilot) pilot.setAttribute("aria-checked", String(room.autopilot.on));
  if (other && !changing && dirty() && room.version !== limitsVersion) refused(room);
  if (question) {
    if (other && question.version !== room.version && !question.session && !yes.disabled) askStale(room);
    else if (question.action && question.version === room.version) $("ask-text").textContent = texts.asks[question.action];
  }
  follow();
});

for (const knob of knobs) slide(knob);
