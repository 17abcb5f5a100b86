// Links to the sale page: made, copied and revoked.
import { call } from "./controls.js";

const $ = (id) => document.getElementById(id);
const dialog = $("share-dialog");
const form = $("share-form");
const link = $("share-link");
const problem = $("share-problem");
const told = $("share-told");

function succeeded(answer) {
  told.textContent = "";
  problem.textContent = answer.problem ?? "";
  problem.hidden = !answer.problem;
  return !answer.problem;
}

$("share").addEventListener("click", () => {
  $("share-result").hidden = true;
  problem.hidden = true;
  told.textContent = "";
  dialog.showModal();
  form.elements.hours.focus();
});
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await call("POST", "/sale-links", { hours: Number(form.elements.hours.value) });
  if (!succeeded(answer)) return;
  link.value = location.origin + answer.data.path;
  $("share-until").textContent = `valid until ${new Date(answer.data.expires_at).toLocaleString()}`;
  $("share-result").hidden = false;
  link.focus();
  link.select();
});
$("share-copy").addEventListener("click", async () => {
  link.select();
  // Without HTTPS browsers have no clipboard; the link is selected for the keyboard.
  const copied = await navigator.clipboard?.writeText(link.value).then(() => true, () => false);
  told.textContent = copied ? "Link copied." : "Press Ctrl+C to copy the link.";
});
$("share-revoke").addEventListener("click", async () => {
  const answer = await call("DELETE", "/sale-links");
  if (!succeeded(answer)) return;
  $("share-result").hidden = true;
  told.textContent = "All links to this sale page are revoked.";
});
$("share-no").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => $("share").focus());
