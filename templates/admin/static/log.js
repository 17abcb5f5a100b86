// The latest entries of the audit log for this room.
import { element, listen, moment, reading } from "./page.js";

const SHOWN = 8;
const READ = 200;
const REFRESH_MS = 30_000;
const NAMES = {
  rate_per_minute: "rate", change: "", undo: "undo", admit: "admitted", end_session: "session ended",
};

const name = document.getElementById("page").dataset.room;
const list = document.getElementById("log");
let version;

const nameOf = (key) => NAMES[key] ?? key.replaceAll("_", " ");

function format(value) {
  if (value === "") return "none";
  if (typeof value === "boolean") return value ? "on" : "off";
  if (typeof value === "number") return value.toLocaleString("en");
  return String(value).replaceAll("_", " ");
}

function describe({ action, old, new: set }) {
  const parts = Object.entries(set).map(([key, value]) => (
    key in old ? `${nameOf(key)} ${format(old[key])} → ${format(value)}` : `${nameOf(key)} ${format(value)}`));
  const text = [nameOf(action), parts.join(", ")].filter(Boolean).join(": ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function row(entry) {
  const made = element("li");
  made.append(moment(entry.at), element("span", entry.who));
  const what = element("span", describe(entry), { className: "what" });
  if (entry.outcome === "refused") what.append(" ", element("b", "refused", { className: "bad" }));
  if (entry.note) what.append(" ", element("q", entry.note));
  made.append(what);
  return made;
}

const load = reading(`/api/v1/audit?count=${READ}`, (data) => {
  if (data) list.replaceChildren(...data.entries.filter((entry) => entry.room === name).slice(0, SHOWN).map(row));
});

load();
setInterval(load, REFRESH_MS);
listen(name, (room) => {
  // Also on the first frame: there may be a change since the list was loaded.
  if (version !== room.version) load();
  version = room.version;
});
