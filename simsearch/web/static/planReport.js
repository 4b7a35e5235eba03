// The exported plan: saved as a file, with what it leaves and the commands that carry it out.

import { button, byId, el, plural } from "./dom.js";
import { bytes, reasonText } from "./duplicateGroups.js";

const FILE = "plan.csv";
const COMMANDS = [
  `simsearch duplicates OUTPUTS --apply ${FILE} --root DATASET`,
  "simsearch duplicates OUTPUTS --undo --root DATASET",
];

/** Save a plan, and show what to do with it. */
export function showPlan(plan) {
  save(plan.csv);
  const panel = byId("exported");
  panel.replaceChildren(
    el("h2", { id: "exported-heading" }, `The plan is in ${FILE}`),
    el("p", {}, `It moves ${plural(plan.copies, "copy", "copies")} out of the way: ${bytes(plan.bytes)}.`),
    ...facts(plan),
    el("p", {}, "Nothing has been moved yet. To carry out the plan, run this on the computer that has the pictures:"),
    ...COMMANDS.slice(0, 1).map(command),
    el("p", {}, "Each file is checked once more, then moved to .simsearch-removed in the dataset. To bring them back:"),
    ...COMMANDS.slice(1).map(command),
    button("Close", { className: "button small", onclick: () => (panel.hidden = true) }),
  );
  panel.hidden = false;
  panel.focus();
}

function save(text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  el("a", { href: address, download: FILE }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function facts({ left, remembered, notes }) {
  const lines = left.map(({ reason, images }) => `${plural(images, "picture")} kept: ${reasonText(reason, images)}.`);
  if (remembered) lines.push(`${plural(remembered, "pair")} will be remembered as not being duplicates.`);
  lines.push(...notes.map((note) => note.charAt(0).toUpperCase() + note.slice(1)));
  return lines.length ? [el("ul", {}, ...lines.map((line) => el("li", {}, line)))] : [];
}

function command(text) {
  const copy = button("Copy", {
    className: "button small",
    "aria-label": `Copy: ${text}`,
    onclick: async () => {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    },
  });
  const shown = navigator.clipboard ? copy : null; // only over HTTPS, and on this machine
  return el("p", { className: "command" }, el("code", {}, text), shown);
}
