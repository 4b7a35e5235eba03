// What the page says in place of pictures, or above them: nothing found, what went wrong, and
// buttons for what to do about it.

import { byId, el, icon } from "./dom.js";

export const action = (words, onclick) =>
  el("button", { type: "button", className: "button", onclick }, words);

/** Say something where the pictures would be; an "alert" is read out at once. */
export function message(heading, words, actions, role = "status") {
  const panel = byId("message");
  panel.setAttribute("role", role);
  panel.replaceChildren(
    icon(role === "alert" ? "alert" : "search"),
    el("h3", {}, heading),
    el("p", {}, words),
    el("div", { className: "ways" }, ...actions.filter(Boolean)),
  );
  panel.hidden = false;
}

/** Say something above the page that stays until it is over. */
export function banner(words, retry) {
  byId("banner").replaceChildren(icon("alert"), el("p", {}, words), retry);
  byId("banner").hidden = false;
}

export function hide(...ids) {
  for (const id of ids) byId(id).hidden = true;
}
