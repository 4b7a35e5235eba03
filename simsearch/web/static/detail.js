// Detail view of a picture, over the page: large, with all that is known of it, beside the query.
// Moves through the list that it was opened from.

import * as api from "./api.js";
import { button, byId, caption, el, icon, readable, scoreText } from "./dom.js";
import { thumbnail } from "./grid.js";
import { cache, cached } from "./imageCache.js";
import { frameLarge, isPart, partText } from "./partFrames.js";
import * as query from "./query.js";
import { library } from "./session.js";
import * as feedback from "./feedback.js";
import { canLike, hasQuery, searchFrom, searchUrl, state } from "./state.js";

const ALIKE = 8; // pictures in the strip
const BROWSER_FORMATS = /\.(jpe?g|jpe|jfif|mpo|png|webp|gif|avif)$/i; // others are sent as JPEG

let rows = []; // of the list that it was opened from
let at = 0;
let opener = null; // what gets the focus back
let comparing = false;
let job = new AbortController();

/** Open the view of the card of a list. */
export function open(card) {
  const cards = [...card.closest(".grid").querySelectorAll(".card[data-row]")];
  rows = cards.map((each) => Number(each.dataset.row));
  opener = card.querySelector(".picture");
  at = cards.indexOf(card);
  render();
  if (!byId("detail").open) byId("detail").showModal();
  byId("detail").querySelector(".detail-close").focus();
}

/** Close it with a click beside it; move with the arrow keys. */
export function listen() {
  const dialog = byId("detail");
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    job.abort();
    const card = document.querySelector(`.grid:not([hidden], .away) .card[data-row="${rows[at]}"]`);
    (card?.querySelector(".picture") ?? opener)?.focus();
  });
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") event.stopPropagation(); // it closes the view, not the search
    if (!step || event.target.matches("input, textarea")) return;
    event.preventDefault();
    move(step);
  });
}

function move(step) {
  if (!(at + step in rows)) return;
  const focused = document.activeElement?.dataset.detail;
  at += step;
  render();
  byId("detail").querySelector(`[data-detail="${focused}"]:not(:disabled)`)?.focus();
}

function render() {
  const image = cached(rows[at]);
  const dialog = byId("detail");
  job.abort();
  job = new AbortController();
  const name = image.path.split("/").pop();
  dialog.setAttribute("aria-label", `Details of ${name}`);
  const strip = el("ul", { className: "strip", "aria-label": "Pictures like this one" });
  dialog.replaceChildren(
    el("header", {}, caption(name, `${at + 1} of ${rows.length.toLocaleString("en")}`), ...moves()),
    pictures(image, name),
    el("div", { className: "facts" }, ...facts(image), actions(image, name)),
    el("h3", { className: "strip-title" }, "More like this one"),
    strip,
  );
  showAlike(image.row, strip, job.signal);
}

function moves() {
  const move_ = (text, step, path) =>
    el(
      "button",
      {
        type: "button",
        className: "round",
        "aria-label": text,
        title: text,
        "data-detail": text,
        disabled: !(at + step in rows),
        onclick: () => move(step),
      },
      icon(path),
    );
  const close = el(
    "button",
    {
      type: "button",
      className: "round detail-close",
      "aria-label": "Close",
      title: "Close",
      "data-detail": "close",
      onclick: () => byId("detail").close(),
    },
    icon("close"),
  );
  return [move_("Previous picture", -1, "previous"), move_("Next picture", 1, "next"), close];
}

/** The picture, and the query beside it if they are compared. */
function pictures(image, name) {
  const source = query.originalUrl();
  const figure = (text, address, alt, match = {}) => {
    const picture = el("img", { src: address, alt });
    picture.addEventListener("error", () =>
      picture.replaceWith(el("span", { className: "broken" }, "The picture could not be loaded.")),
    );
    const shown = frameLarge(picture, match);
    return el("figure", {}, shown, text ? el("figcaption", {}, text) : null);
  };
  const compared = comparing && hasQuery() && source;
  return el(
    "div",
    { className: `large ${compared ? "compared" : ""}` },
    compared ? figure("Your picture", source, "Your picture") : null,
    figure(compared ? "This picture" : null, image.image, name, image),
  );
}

function facts(image) {
  const known = { ...image.metadata };
  const lines = Object.entries(known).map(([key, value]) => [readable(key), String(value)]);
  if (isPart(image)) lines.unshift(["Part that matched", partText(image)]);
  return [
    "score" in image ? el("p", { className: "detail-score" }, scoreText(image)) : null,
    el(
      "dl",
      {},
      ...lines.flatMap(([key, value]) => [
        el("dt", {}, key),
        el("dd", {}, el("bdi", {}, value)),
      ]),
      el("dt", {}, "Path"),
      el("dd", {}, el("code", {}, el("bdi", {}, image.path))),
    ),
  ].filter(Boolean);
}

function actions(image, name) {
  const search = el(
    "a",
    {
      className: "button primary",
      href: searchUrl(image.row),
      "data-detail": "search",
      onclick: (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return; // opens a new tab
        event.preventDefault();
        byId("detail").close();
        searchFrom({ row: image.row });
      },
    },
    icon("search"),
    el("span", {}, "Find similar"),
  );
  const compare = button(
    "Compare with your picture",
    {
      "data-detail": "compare",
      "aria-pressed": String(comparing),
      onclick: () => {
        comparing = !comparing;
        render();
        byId("detail").querySelector("[data-detail=compare]").focus();
      },
    },
    "compare",
  );
  const like = (text, name, iconName) =>
    button(
      text,
      {
        "data-detail": name,
        "aria-pressed": String(state()[name].includes(image.row)),
        onclick: () => {
          feedback.toggle(state(), name, image.row);
          byId("detail").querySelector(`[data-detail=${name}]`)?.setAttribute(
            "aria-pressed",
            String(state()[name].includes(image.row)),
          );
        },
      },
      iconName,
    );
  const link = (text, iconName, properties) =>
    el("a", { className: "button", href: image.image, ...properties }, icon(iconName), el("span", {}, text));
  const download = BROWSER_FORMATS.test(name) ? name : `${name}.jpg`;
  return el(
    "div",
    { className: "buttons" },
    search,
    hasQuery() && query.originalUrl() ? compare : null,
    canLike() ? like(hasQuery() ? "More like this" : "Like", "liked", "like") : null,
    canLike() && hasQuery() ? like("Less like this", "disliked", "dislike") : null,
    link("Download", "download", { download, "data-detail": "download" }),
    link("Full size", "open", {
      target: "_blank",
      rel: "noopener",
      title: "Opens in a new tab",
      "data-detail": "open",
    }),
    copyButton(image.path),
  );
}

function copyButton(path) {
  if (!navigator.clipboard) return null; // only over HTTPS, and on this machine
  const copy = button(
    "Copy path",
    {
      "data-detail": "copy",
      onclick: async () => {
        await navigator.clipboard.writeText(path);
        copy.lastChild.textContent = "Copied";
      },
    },
    "copy",
  );
  return copy;
}

/** Fill the strip with what is most similar; without an answer it stays empty. */
async function showAlike(row, strip, signal) {
  const body = new FormData();
  body.set("version", library().version);
  body.set("row", row);
  body.set("k", Math.min(ALIKE, library().matches));
  try {
    const { answers } = await api.search("search", body, signal);
    strip.replaceChildren(...answers[0].matches.map(alike));
  } catch (error) {
    if (!api.isAbort(error)) strip.replaceChildren(el("li", {}, "Pictures like this one could not be loaded."));
  }
}

function alike(match) {
  const { score: _, percentile: __, box: ___, ...image } = match; // its score is that to this picture
  if (!cached(match.row)) cache(image);
  const show = () => {
    rows = [...rows.slice(0, at + 1), match.row, ...rows.slice(at + 1)];
    move(1);
  };
  const name = match.path.split("/").pop();
  return el(
    "li",
    {},
    el(
      "button",
      { type: "button", "aria-label": `Details of ${name}`, title: name, onclick: show },
      thumbnail(match),
    ),
  );
}
