// The autopilot's latest decisions in this room, loaded when the list is opened and while it is open.
import { element, listen, moment, reading } from "./page.js";

const SHOWN = 20;

const name = document.getElementById("page").dataset.room;
const card = document.getElementById("decisions");
const list = card.querySelector("ol");
const none = card.querySelector(".none");
let newest;

function row({ at, rate_per_minute: rate, summary }) {
  const made = element("li");
  const number = rate.toLocaleString("en", { maximumFractionDigits: rate < 10 ? 1 : 0 });
  made.append(moment(at), element("span", `${number}/min`), element("span", summary, { className: "what" }));
  return made;
}

const path = `/api/v1/rooms/${encodeURIComponent(name)}/decisions?count=${SHOWN}`;
const load = reading(path, (data) => {
  none.textContent = data ? "No decisions yet." : "Decisions unavailable.";
  if (data) list.replaceChildren(...data.decisions.map(row));
});

card.addEventListener("toggle", () => { if (card.open) load(); });
listen(name, ({ autopilot }) => {
  // Also on the first frame: the list may have been opened before it.
  if (newest !== autopilot?.at && card.open) load();
  newest = autopilot?.at;
});
