// The trail: the pictures that were searched with on the way to the present one, to go back to.

import { byId, el, icon } from "./dom.js";
import { openSearch } from "./state.js";

const KEY = "trail";
const MAX_STEPS = 12;

let steps = load(); // [{key, search, name, thumbnail}]

function load() {
  try {
    const found = JSON.parse(sessionStorage.getItem(KEY));
    return Array.isArray(found) ? found : [];
  } catch {
    return []; // storage is disabled
  }
}

function store() {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(steps));
  } catch {
    // the trail lasts until the page closes
  }
}

/** Add the query that is shown, after the one before it; a known one becomes the present one. */
export function visit(step, previousKey) {
  const known = steps.findIndex(({ key }) => key === step.key);
  if (known >= 0) steps[known] = step;
  else {
    const before = steps.findIndex(({ key }) => key === previousKey);
    steps = [...steps.slice(0, before + 1), step].slice(-MAX_STEPS);
  }
  store();
  render(step.key);
}

/** Hide the trail, as in the library. */
export const hide = () => (byId("trail").hidden = true);

function render(present) {
  byId("trail").hidden = steps.length < 2;
  byId("trail").replaceChildren(el("ol", {}, ...steps.map((step) => entry(step, present))));
}

function entry({ key, search, name, thumbnail }, present) {
  const picture = thumbnail && el("img", { src: thumbnail, alt: "", draggable: false });
  picture?.addEventListener("error", () => picture.replaceWith(icon("picture")));
  const open = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // opens a new tab
    event.preventDefault();
    openSearch(search);
  };
  return el(
    "li",
    {},
    el(
      "a",
      {
        href: search,
        title: name,
        "aria-label": `Back to ${name}`,
        "aria-current": key === present ? "step" : null,
        onclick: open,
      },
      picture || icon("picture"),
    ),
  );
}
