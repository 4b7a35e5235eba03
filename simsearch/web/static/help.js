// Help on the keyboard, opened by "?".

import { byId, el } from "./dom.js";

const KEYS = [
  ["Arrow keys", "Move over the pictures"],
  ["Enter", "Search with a picture"],
  ["I", "Details of a picture"],
  ["L, D", "More like this, less like this"],
  ["W", "Show why it matches"],
  ["X", "Select a picture; Shift with a click selects all up to it"],
  ["Home, End", "First and last picture"],
  ["Left, Right", "In the details: previous and next picture"],
  ["Escape", "Close, clear the part, or go back to the library"],
  ["?", "This list"],
];

/** Open the list with "?", unless text is being typed. */
export function listen() {
  const dialog = byId("help");
  dialog.append(
    el("h2", { id: "help-heading" }, "Keyboard"),
    el("dl", {}, ...KEYS.flatMap(([key, text]) => [el("dt", {}, key), el("dd", {}, text)])),
    el("form", { method: "dialog" }, el("button", { className: "button" }, "Close")),
  );
  addEventListener("keydown", (event) => {
    if (event.key !== "?" || event.target.matches("input:not([type=checkbox]), textarea")) return;
    event.preventDefault();
    if (!document.querySelector("dialog[open]")) dialog.showModal();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "Escape") event.stopPropagation(); // it closes the list, not the search
  });
}
