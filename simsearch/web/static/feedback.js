// Relevance feedback: the liked and disliked images, with buttons to remove them.

import { button, byId, el, icon } from "./dom.js";
import { thumbnail } from "./grid.js";
import { hasFeedback, update } from "./state.js";

/** Show the liked and disliked images; `imageOf(row)` gives {thumbnail, name}. */
export function render(state, imageOf) {
  byId("feedback").hidden = !hasFeedback(state);
  byId("feedback").replaceChildren(
    ...["liked", "disliked"].flatMap((name) => renderList(name, state, imageOf)),
    button("Clear all", { className: "quiet", id: "clear-feedback", onclick: clear }),
  );
}

/** Add a row to "liked" or "disliked", or remove it if it is there. */
export function toggle(state, name, row) {
  const other = name === "liked" ? "disliked" : "liked";
  const without = (list) => state[list].filter((each) => each !== row);
  const present = state[name].includes(row);
  update({ [name]: present ? without(name) : [...state[name], row], [other]: without(other) });
}

export const clear = () => update({ liked: [], disliked: [] });

function renderList(name, state, imageOf) {
  if (!state[name].length) return [];
  const title = name === "liked" ? "More like" : "Less like";
  const entry = (row) => el("li", {}, removeButton(row, name, title, state, imageOf(row)));
  return el(
    "div",
    { className: "feedback-list" },
    el("h2", {}, icon(name.slice(0, -1)), title),
    el("ul", {}, ...state[name].map(entry)),
  );
}

const removeButton = (row, name, title, state, image) =>
  el(
    "button",
    {
      type: "button",
      title: `Remove: ${image.name}`,
      "aria-label": `Remove from “${title}”: ${image.name}`,
      onclick: () => toggle(state, name, row),
    },
    thumbnail(image),
    icon("close"),
  );
