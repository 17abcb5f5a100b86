// What operators do with events. Each change is previewed, and based on the version of the room that was seen.
import { call, change, effectOf, newest, openDialog, stale, version, withNote } from "./controls.js";
import { element, focusAgain, listen, toast } from "./page.js";

const PREVIEW_DELAY_MS = 300;
const EXTEND_MS = 30 * 60_000;

const $ = (id) => document.getElementById(id);
const dialog = $("event-dialog");
const form = $("event-form");
const yes = $("event-yes");
const effect = $("event-effect");
const fields = form.elements;
const limits = [...form.querySelectorAll("[data-limit]")];
const TIMES = ["prequeue_start", "start", "end"];
const CHOICES = { method: "fifo", before: "closed", after: "open" };
// Members that are fixed from a phase on.
const FIXED = { prequeue: ["prequeue_start", "method"], running: ["prequeue_start", "start", "method", "before", "units"] };
// How each answer is confirmed.
const ASKS = {
  start: { button: "Start now", title: (title) => `Start ${title} now?` },
  end: { button: "End now", danger: true, title: (title) => `End ${title} now?` },
  cancel: { button: "Cancel the event", keep: "Keep it", danger: true, title: (title) => `Cancel ${title}?` },
};
const TITLES = { add: () => "Add an event", edit: (title) => `Edit ${title}`, extend: (title) => `Extend ${title}` };

let mode;
let event;
let opener;
let based;
let timer;
let previews = 0;
let sending = false;

const rows = () => [...document.querySelectorAll("#timeline [data-event]")].map((row) => JSON.parse(row.dataset.event));
const titleOf = (one) => one.title || one.name;
const pathOf = (name) => `/events/${encodeURIComponent(name)}`;

// Times of inputs are in the browser's time zone, those of the API in UTC.
function toLocal(at) {
  const when = new Date(at);
  return new Date(when - when.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

function toUtc(value) { return value ? new Date(value).toISOString().replace(/\.\d+Z$/, "Z") : null; }

const sameTime = (one, other) => (one && Date.parse(one)) === (other && Date.parse(other));

function zone() {
  const offset = new Intl.DateTimeFormat("en", { timeZoneName: "longOffset" }).formatToParts(new Date());
  const name = offset.find(({ type }) => type === "timeZoneName").value.replace("GMT", "UTC");
  return `${Intl.DateTimeFormat().resolvedOptions().timeZone} (${name})`;
}

function limitOf(input) {
  const text = input.value.trim();
  if (!text) return null;
  return text === "auto" ? text : Number(text);
}

// The members that differ from those of the event; all that are set for a new one.
function body() {
  const changed = {};
  const put = (key, value, before, same = value === before) => { if (!same) changed[key] = value; };
  for (const key of TIMES) put(key, toUtc(fields[key].value), event[key], sameTime(toUtc(fields[key].value), event[key]));
  if (mode === "extend") return { end: changed.end ?? event.end };
  put("title", fields.title.value.trim(), event.title);
  for (const key of Object.keys(CHOICES)) put(key, fields[key].value, event[key]);
  put("units", fields.units.value === "" ? null : fields.units.valueAsNumber, event.units);
  for (const input of limits) put(input.name, limitOf(input), event.limits[input.name] ?? null);
  return changed;
}

function fill() {
  fields.name.value = event.name;
  fields.title.value = event.title;
  for (const key of TIMES) fields[key].value = event[key] ? toLocal(event[key]) : "";
  for (const key of Object.keys(CHOICES)) fields[key].value = event[key];
  fields.units.value = event.units ?? "";
  for (const input of limits) input.value = event.limits[input.name] ?? "";
  if (mode === "extend") fields.end.value = toLocal((event.end ? Date.parse(event.end) : Date.now()) + EXTEND_MS);
}

function open(kind, one, button) {
  [mode, event, opener, based] = [kind, one, button, version()];
  for (const part of form.querySelectorAll("[data-modes]")) part.hidden = !part.dataset.modes.split(" ").includes(mode);
  for (const input of form.querySelectorAll("[data-modes] :is(input, select)")) input.disabled = Boolean(input.closest("[hidden]"));
  for (const key of FIXED[event.phase] ?? []) fields[key].disabled = true;
  fields.end.required = mode === "extend";
  fields.note.value = "";
  fill();
  form.querySelector("details").open = limits.some((input) => input.value);
  $("event-title").textContent = TITLES[mode](titleOf(event));
  $("event-zone").textContent = zone();
  $("event-stale").hidden = true;
  dialog.showModal();
  form.querySelector("label:not([hidden]) :is(input, select):enabled").focus();
  edited();
}

function hint(text) { effect.replaceChildren(element("p", text, { className: "quiet" })); }

function edited() {
  clearTimeout(timer);
  previews += 1;
  yes.disabled = true;
  const taken = mode === "add" && rows().some(({ name }) => name === fields.name.value);
  fields.name.setCustomValidity(taken ? "There is an event of this name. Edit it instead." : "");
  if (!$("event-stale").hidden) return;
  if (taken) hint("There is an event of this name. Edit it instead.");
  else if (!form.checkValidity()) hint(mode === "add" && !(fields.name.value && fields.start.value)
    ? "Enter a name and a start to preview the effect." : "A value is missing or invalid.");
  else if (!Object.keys(body()).length) hint("Nothing is changed yet.");
  else timer = setTimeout(preview, PREVIEW_DELAY_MS);
}

async function preview() {
  const mine = ++previews;
  const answer = await call("PUT", `${pathOf(fields.name.value)}?dry_run=true`, body(), based);
  if (mine !== previews) return;
  if (answer.status === 412) { refused(answer.data.room); return; }
  if (answer.problem) { effect.replaceChildren(element("p", answer.problem, { className: "warning" })); return; }
  effect.replaceChildren(...effectOf(answer.data.effect));
  yes.disabled = false;
}

function refused(now) {
  newest(now);
  yes.disabled = true;
  previews += 1;
  stale($("event-stale"), now, () => {
    based = version();
    event = rows().find(({ name }) => name === event.name) ?? event;
    edited();
    $("event-no").focus();
  });
}

form.addEventListener("input", edited);
form.addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  if (yes.disabled) return;
  yes.disabled = true;
  sending = true;
  const answer = await change("PUT", pathOf(fields.name.value), withNote(body(), fields.note.value), based);
  sending = false;
  if (answer.status === 412) { refused(answer.data.room); return; }
  if (answer.problem) {
    effect.replaceChildren(element("p", answer.problem, { className: "warning" }));
    yes.disabled = false;
    return;
  }
  dialog.close();
  toast(mode === "add" ? "Event added." : "Event changed.");
});
$("event-no").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  clearTimeout(timer);
  previews += 1;
  focusAgain(opener);
});

$("add-event").addEventListener("click", ({ currentTarget }) => {
  const times = Object.fromEntries(TIMES.map((key) => [key, null]));
  open("add", { name: "", title: "", units: null, limits: {}, ...times, ...CHOICES }, currentTarget);
});

$("timeline").addEventListener("click", ({ target }) => {
  const button = target.closest("[data-event-action]");
  if (!button) return;
  const action = button.dataset.eventAction;
  const one = JSON.parse(button.closest("[data-event]").dataset.event);
  if (action in TITLES) { open(action, one, button); return; }
  const { title, ...rest } = ASKS[action];
  const where = `${pathOf(one.name)}/${action}`;
  openDialog({ ...rest, title: title(titleOf(one)), text: "Reading the effect…", where }, button);
});

listen($("page").dataset.room, (room) => {
  if (dialog.open && room.version !== based && $("event-stale").hidden && !sending) refused(room);
});
