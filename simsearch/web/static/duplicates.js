// The page of duplicates: starts the search, shows how far it is, lists groups, exports the plan.
// Moves nothing.

import * as api from "./api.js";
import * as choices from "./choices.js";
import { announce, button, byId, el, plural } from "./dom.js";
import { bytes, groupCard } from "./duplicateGroups.js";
import { showSwitch } from "./librarySwitch.js";
import { actionButton, showMessage } from "./messages.js";
import { showPlan } from "./planReport.js";

const PAGE_SIZE = 20; // groups
const POLL_MS = 1000;

let version = "";
let groups = []; // that are listed
let copies = null; // the last answer of the server

const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Run `action`; a failure is shown, with a button to run it again. */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof api.ApiError)) console.error(error); // a bug of this page
    const text = error.message.charAt(0).toUpperCase() + error.message.slice(1);
    const retry = actionButton("Try again", () => attempt(action));
    showMessage("The server could not answer", text, [retry], "alert");
  }
}

async function show() {
  byId("message").hidden = true;
  copies = await api.duplicates(0, PAGE_SIZE);
  if (copies.state === "none") showStart();
  else if (copies.state === "failed") showFailure(copies.error);
  else if (copies.state === "running") await follow();
  else showGroups();
}

async function find() {
  copies = await api.findDuplicates();
  await show();
}

/** Show how far the search is until it ends. */
async function follow() {
  const bar = el("progress", { "aria-label": "Progress of the search" });
  const text = el("p", { className: "step" });
  showMessage("Looking for duplicates", "You can leave this page; the search goes on.", [bar]);
  byId("message").append(text);
  while (copies.state === "running") {
    const { step, done, total } = copies;
    if (total) Object.assign(bar, { max: total, value: done });
    else bar.removeAttribute("value");
    text.textContent = total
      ? `${step}: ${done.toLocaleString("en")} of ${total.toLocaleString("en")}`
      : step;
    await wait(POLL_MS);
    copies = await api.duplicates(0, PAGE_SIZE);
  }
  await show();
}

function showStart() {
  showMessage(
    "Find duplicates in this library",
    "Every picture is compared with those that look like it. With many pictures this takes some minutes, " +
      "and the result is kept until the library changes.",
    [button("Find duplicates", { className: "button primary", onclick: () => attempt(find) })],
  );
}

const showFailure = (error) =>
  showMessage(
    "The search for duplicates failed",
    error.charAt(0).toUpperCase() + error.slice(1),
    [actionButton("Try again", () => attempt(find))],
    "alert",
  );

function showGroups() {
  version = copies.version;
  choices.open(version);
  groups = [];
  byId("groups").replaceChildren();
  byId("toolbar").hidden = !copies.groups;
  if (!copies.groups)
    showMessage("No duplicates", ["No picture is a copy of another one.", ...copies.notes].join(" "), []);
  append(copies.listed);
  announce(plural(copies.groups, "group"));
}

function append(listed) {
  groups.push(...listed);
  byId("groups").append(...listed.map((group) => groupCard(group, version, showSummary)));
  byId("more").hidden = groups.length >= copies.groups;
  showSummary();
}

/** Sum up the plan as it was found, changed by the choices on this page. */
function showSummary() {
  const change = groups.map(choices.changeOf);
  const count = copies.copies + change.reduce((sum, each) => sum + each.copies, 0);
  const size = copies.bytes + change.reduce((sum, each) => sum + each.bytes, 0);
  byId("summary").textContent =
    `${plural(copies.groups, "group")} · ${plural(count, "copy", "copies")} can be removed · ${bytes(size)}`;
}

async function more() {
  const next = await api.duplicates(groups.length, PAGE_SIZE);
  if (next.version !== version || next.state !== "ready") return show();
  append(next.listed);
}

async function exportPlan() {
  byId("export").disabled = true;
  try {
    const plan = await api.planDuplicates({ version, ...choices.request() });
    showPlan(plan);
    if (plan.remembered) {
      choices.forgetPairs();
      await show();
    }
  } finally {
    byId("export").disabled = false;
  }
}

byId("more").addEventListener("click", () => attempt(more));
byId("export").addEventListener("click", () => attempt(exportPlan));
attempt(show);
attempt(async () => showSwitch(await api.library(), "duplicates"));
