// Messages in place of the results or above the page, with buttons for what to do next.

import { button, byId, el, icon } from "./dom.js";

export const actionButton = (text, onclick) => button(text, { onclick });

/** Show a message in place of the results; role "alert" is read out at once. */
export function showMessage(heading, text, actions, role = "status") {
  const panel = byId("message");
  panel.setAttribute("role", role);
  panel.replaceChildren(
    icon(role === "alert" ? "alert" : "search"),
    el("h3", {}, heading),
    el("p", {}, text),
    el("div", { className: "buttons" }, ...actions.filter(Boolean)),
  );
  panel.hidden = false;
  enableTools(false);
}

/** Enable the buttons that change how matches are shown; one that is pressed can be released. */
function enableTools(enabled) {
  for (const tool of document.querySelectorAll(".search-only[aria-pressed]"))
    tool.disabled = !enabled && tool.getAttribute("aria-pressed") !== "true";
}

/** Take an error away that a newer one replaces. */
export function dropAlert() {
  const panel = byId("message");
  if (panel.getAttribute("role") === "alert") panel.hidden = true;
}

/** Show a banner above the page; it stays until it is hidden. */
export function showBanner(text, retry) {
  byId("banner").replaceChildren(icon("alert"), el("p", {}, text), retry);
  byId("banner").hidden = false;
}

/** Set the heading of the results and the note beside it. */
export function setHeading(heading, note = "") {
  byId("heading").textContent = heading;
  byId("note").textContent = note;
}

export function hide(...ids) {
  for (const id of ids) byId(id).hidden = true;
}

/** Show the list of the library or that of the matches. */
export function swapLists(name) {
  byId("library").classList.toggle("away", name !== "library"); // it keeps its layout
  byId("matches").hidden = name !== "matches";
}

/** Show a list without a message. */
export function showList(name) {
  swapLists(name);
  hide("more", "more-matches", "legend", "message", ...(name === "library" ? ["heat-legend"] : []));
  enableTools(true);
}
