// The tray of what is liked and disliked, with ways to take it back.

import { byId, el, icon } from "./dom.js";
import { thumbnail } from "./grid.js";
import { go } from "./state.js";

/** Show the tray; `imageOf(row)` gives {thumbnail, name}. */
export function show(state, imageOf) {
  const tray = byId("taste");
  const any = state.liked.length + state.disliked.length > 0;
  tray.hidden = !any;
  tray.replaceChildren(
    ...(any
      ? [
          side("liked", "More like", state, imageOf),
          side("disliked", "Less like", state, imageOf),
          el(
            "button",
            { type: "button", className: "quiet", id: "forget", onclick: forget },
            "Clear all",
          ),
        ].filter(Boolean)
      : []),
  );
}

/** Put a row on one side, or take it back if it is there. */
export function mark(state, side, row) {
  const other = side === "liked" ? "disliked" : "liked";
  const without = (name) => state[name].filter((each) => each !== row);
  const there = state[side].includes(row);
  go({ [side]: there ? without(side) : [...state[side], row], [other]: without(other) });
}

export const forget = () => go({ liked: [], disliked: [] });

function side(name, words, state, imageOf) {
  if (!state[name].length) return null;
  return el(
    "div",
    { className: "side" },
    el("h2", {}, icon(name.slice(0, -1)), words),
    el("ul", {}, ...state[name].map((row) => entry(row, name, words, state, imageOf(row)))),
  );
}

function entry(row, name, words, state, image) {
  const button = el(
    "button",
    {
      type: "button",
      title: `Take back: ${image.name}`,
      "aria-label": `No longer “${words}”: ${image.name}`,
      onclick: () => mark(state, name, row),
    },
    thumbnail(image),
    icon("close"),
  );
  return el("li", {}, button);
}
