// Cards of pictures: those of the library, and matches with their scores and buttons.
// Reports which card action was chosen; does not act on it.

import { caption, captionOf, el, icon, plural, scoreText, titleOf } from "./dom.js";
import { frameThumbnail } from "./partFrames.js";
import { searchUrl } from "./state.js";

export { listen } from "./cardEvents.js";

const SIZES = "(max-width: 600px) 46vw, 320px";
const RATIOS = [0.7, 2.4]; // width to height of a card's picture; what is beyond is cropped
const SKELETON_RATIOS = [1.5, 1, 0.75, 1.33];

/** Fills the line above the next entry, whose pictures would be stretched otherwise. */
export const lineEnd = () => el("div", { className: "line-end", "aria-hidden": "true" });

/** A line over all columns, above the matches that are below the automatic threshold. */
export const weakLine = (isFirst) =>
  el(
    "div",
    { className: "weak-line", role: "listitem" },
    el("b", {}, isFirst ? "No close match" : "No close matches from here on"),
    el(
      "span",
      {},
      isFirst
        ? "These are the nearest pictures, but they may show something else."
        : "The pictures below may show something else.",
    ),
  );

/** A card for an image of the library, or for a match. */
export function card(image, state) {
  const name = titleOf(image);
  const isMatch = "score" in image;
  const picture = el(
    "a",
    {
      className: "picture",
      href: searchUrl(image.row),
      draggable: false,
      "data-action": "search",
      "aria-label": `Search with ${name}`,
    },
    thumbnail(image),
  );
  if (isMatch) frameThumbnail(picture, image, ratioOf(image));
  return shaped(
    ratioOf(image),
    { className: "card", "data-row": image.row },
    el("div", { className: "frame" }, picture, select(name), actions(image, name, state, isMatch)),
    isMatch ? score(image) : null,
    caption(...captionOf(image), name),
    isMatch && image.duplicates.length ? duplicates(image.duplicates) : null,
  );
}

/** A list entry for a picture with this ratio of width to height. */
function shaped(ratio, properties, ...children) {
  const entry = el("div", { role: "listitem", ...properties }, ...children);
  entry.style.setProperty("--ratio", ratio);
  return entry;
}

/** Width to height of a picture; 1 where it is unknown. */
const ratioOf = ({ width, height }) =>
  width && height ? Math.min(RATIOS[1], Math.max(RATIOS[0], width / height)) : 1;

/** Show on the cards of the library which are liked; the others are left alone: there may be many. */
export function showLikes(list, { liked }) {
  const buttons = (rows) => rows.map((row) => list.querySelector(`[data-row="${row}"] .like`));
  const pressed = list.querySelectorAll('.like[aria-pressed="true"]');
  for (const button of pressed) button.setAttribute("aria-pressed", "false");
  for (const button of buttons(liked)) button?.setAttribute("aria-pressed", "true");
}

const select = (name) =>
  el(
    "button",
    {
      type: "button",
      className: "select",
      "data-action": "select",
      "aria-pressed": "false",
      title: "Select",
      "aria-label": `Select: ${name}`,
    },
    icon("check"),
  );

/** Placeholders for cards that are being loaded. */
export const skeletons = (count) =>
  Array.from({ length: count }, (_, i) =>
    shaped(
      SKELETON_RATIOS[i % SKELETON_RATIOS.length],
      { className: "card skeleton", role: null, "aria-hidden": "true" },
      el("div", { className: "frame" }, el("div", { className: "picture" })),
      caption("\u00a0", "\u00a0", ""),
    ),
  );

export function thumbnail(image) {
  const sized = (size) => `${image.thumbnail}&size=${size}`;
  const node = el("img", {
    alt: "",
    loading: "lazy",
    decoding: "async",
    draggable: false,
    sizes: SIZES,
  });
  node.addEventListener("load", () => node.classList.add("ready"));
  node.addEventListener("error", () =>
    node.replaceWith(el("span", { className: "broken" }, "Cannot be shown")),
  );
  node.srcset = `${sized(256)} 256w, ${sized(512)} 512w`;
  node.src = sized(256);
  return node;
}

function actions(image, name, state, isMatch) {
  const toggle = (action, text, pressed) =>
    el(
      "button",
      {
        type: "button",
        className: `action ${action}`,
        "data-action": action,
        "aria-pressed": String(pressed),
        title: text,
        "aria-label": `${text}: ${name}`,
      },
      icon(action),
    );
  return el(
    "div",
    { className: "actions" },
    toggle("like", isMatch ? "More like this" : "Like", state.liked.includes(image.row)),
    isMatch ? toggle("dislike", "Less like this", state.disliked.includes(image.row)) : null,
    isMatch ? toggle("explain", "Why it matches", false) : null,
    detailLink(image, name),
  );
}

/** Opens the details; with Ctrl, the original in a new tab. */
const detailLink = (image, name) =>
  el(
    "a",
    {
      className: "action open",
      href: image.image,
      title: "Details",
      "data-action": "detail",
      "aria-haspopup": "dialog",
      "aria-label": `Details: ${name}`,
    },
    icon("expand"),
  );

function score({ score, percentile }) {
  const rank = rankAmongPairs(percentile);
  const bar = el("i");
  bar.style.width = `${100 * Math.max(0, Math.min(1, score))}%`;
  return el(
    "p",
    { className: "score", title: scoreText({ score, percentile }) },
    el("b", {}, score.toFixed(3)),
    el("span", { className: "score-bar", "aria-hidden": "true" }, bar),
    el("span", { className: "percentile" }, rank),
  );
}

/** Rank of a score among random pairs: "top 0.4%", in the same words as Python's `Match`. */
function rankAmongPairs(percentile) {
  if (percentile === null) return "";
  if (percentile <= 50) return `low ${percentile.toFixed(0)}%`;
  return `top ${Number(Math.max(100 - percentile, 0.01).toPrecision(2))}%`;
}

function duplicates(images) {
  const list = el(
    "ul",
    { className: "duplicates", hidden: true },
    ...images.map((image) => el("li", { "data-row": image.row }, duplicate(image))),
  );
  const toggle = el(
    "button",
    { type: "button", className: "duplicates-toggle", "aria-expanded": "false" },
    icon("stack"),
    `+${plural(images.length, "near-duplicate")}`,
  );
  toggle.addEventListener("click", () => {
    list.hidden = !list.hidden;
    toggle.setAttribute("aria-expanded", String(!list.hidden));
  });
  return el("div", {}, toggle, list);
}

const duplicate = (image) =>
  el(
    "a",
    {
      href: searchUrl(image.row),
      "data-action": "search",
      title: image.path,
      "aria-label": `Search with ${titleOf(image)}`,
    },
    thumbnail(image),
  );
