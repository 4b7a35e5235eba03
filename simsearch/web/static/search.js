// One search: shows the query, sends the request, and shows the matches.

import * as api from "./api.js";
import { announce, byId, plural, titleOf } from "./dom.js";
import * as grid from "./grid.js";
import * as heatmap from "./heatmap.js";
import { cache, cached } from "./imageCache.js";
import { setHeading, showList, showMessage } from "./messages.js";
import * as partSuggestions from "./partSuggestions.js";
import * as query from "./query.js";
import { buildRequest } from "./request.js";
import { library } from "./session.js";
import * as selection from "./selection.js";
import { hasFeedback, hasOwnQuery, state } from "./state.js";
import { choosePicture, relaxations } from "./suggestions.js";
import * as trail from "./trail.js";
import * as uploads from "./uploads.js";

// In the name of words that mean no class, or that no picture shows.
const UNFOUND = /\((no (?:concept near|picture clearly shows this).*)\)$/;
const MAX_SKELETONS = 12;
const MORE_MATCHES = 48; // that one press of the button adds
const AUTO_PERCENTILE = 99.9; // of random pairs, that the automatic threshold stands for
const LARGE_PREVIEW_RATIO = 1.5; // device pixels per CSS pixel, above which thumbnails look blurred

let previousKey = null; // of the search before
let shown = null; // {state, request, matches} of the search that is shown
let goesOn = false; // whether further matches load as the end of the list is scrolled to
let focusTarget = null; // {index, action} of the button to focus after the next search

/** Search for the present state. */
export async function run(signal) {
  const current = state();
  showList("matches");
  const list = byId("matches");
  if (!list.children.length) {
    list.replaceChildren(...grid.skeletons(Math.min(current.k, MAX_SKELETONS)));
    setHeading("Searching…");
  }
  list.setAttribute("aria-busy", "true");
  await uploads.restore(current.upload);
  signal.throwIfAborted();
  partSuggestions.leave(current);
  if (!(await showQuery(current, signal))) return;
  const request = () => buildRequest(current, library(), query.originalUrl());
  const { endpoint, body } = await request();
  const { answers, milliseconds } = await api.search(endpoint, body, signal, showBusy);
  heatmap.reset(async () => (await request()).body);
  shown = { current, request, count: Number(body.get("k")), asked: Number(body.get("k")) };
  goesOn = false;
  showMatches(answers[0], milliseconds, current);
  partSuggestions.load(current, query.suggest);
  addToTrail(current);
}

/** Add the query that is shown to the trail. */
function addToTrail(current) {
  const key = queryKey(current);
  const image = current.row === null ? null : cached(current.row);
  const name = document.title.replace(/ – simsearch$/, "");
  trail.visit({ key, search: location.search, name, thumbnail: image?.thumbnail ?? null }, previousKey);
  previousKey = key;
}

/** Call `onPress(next)` to show more matches; once pressed, scrolling to the end does it, too. */
export function onMore(onPress) {
  const next = () => onPress(showMore);
  byId("more-matches").addEventListener("click", () => {
    goesOn = true;
    next();
  });
  new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && goesOn && next(), {
    rootMargin: "300px",
  }).observe(byId("more-matches"));
}

/** Ask for more matches of the same search, and add those that are new. */
async function showMore(signal) {
  const mine = shown;
  byId("more-matches").disabled = true;
  try {
    const { endpoint, body } = await mine.request();
    const asked = Math.min(mine.asked + MORE_MATCHES, library().matches);
    body.set("k", asked);
    const { answers, milliseconds } = await api.search(endpoint, body, signal, showBusy);
    if (mine !== shown) return;
    shown.asked = asked;
    showMatches(answers[0], milliseconds, mine.current);
  } finally {
    byId("more-matches").disabled = false;
  }
}

/** Identifies the query of a state. */
export const queryKey = ({ row, upload, url, text, likes }) =>
  JSON.stringify([row, upload, url, text, likes]);

/** After the next search, focus the `action` button of the match at `index`. */
export const focusNext = (index, action) => (focusTarget = { index, action });

/** Show the query; false where its file is gone. */
async function showQuery(current, signal) {
  if (current.upload !== null) return showUpload(current);
  const key = queryKey(current);
  if (!hasOwnQuery(current)) {
    document.title = "Pictures that you like – simsearch";
    query.show(null, null);
    return true;
  }
  if (current.text !== null) {
    document.title = `${current.text} – simsearch`;
    query.show({ key, name: "Words", words: current.text }, null);
    return true;
  }
  if (current.url !== null) {
    const missing = "The server downloads this picture from its address.";
    query.show({ key, name: current.url, missing }, null);
    return true;
  }
  const image =
    cached(current.row) ?? cache(await api.image(current.row, library().version, signal));
  const large = devicePixelRatio > LARGE_PREVIEW_RATIO;
  const name = titleOf(image);
  document.title = `${name} – simsearch`;
  query.show(
    {
      key: `${key} ${image.image}`,
      source: large ? image.image : `${image.thumbnail}&size=512`,
      original: image.image,
      name,
    },
    current.box,
  );
  return true;
}

function showUpload(current) {
  const file = uploads.get(current.upload);
  const key = queryKey(current);
  const name = file?.name || "Your picture";
  document.title = `${name} – simsearch`;
  if (file) {
    query.show({ key, name, source: file }, current.box);
    return true;
  }
  query.show({ key, name, missing: "This picture is no longer available." }, null);
  byId("matches").removeAttribute("aria-busy");
  byId("matches").replaceChildren();
  setHeading("No picture");
  showMessage(
    "Your picture is no longer here",
    "The browser that it was chosen in keeps the latest pictures; the server stores none. Choose it again to continue.",
    [choosePicture()],
  );
  return false;
}

const showBusy = (seconds) =>
  (byId("note").textContent = `The server is busy; trying again in ${seconds} s`);

function showMatches({ query: name, matches, exact }, milliseconds, current) {
  const list = byId("matches");
  list.removeAttribute("aria-busy");
  showCards(list, matches);
  byId("legend").hidden = !matches.length;
  byId("more-matches").hidden = matches.length < shown.asked || !mayAsk();
  const count = plural(matches.length, "match", "matches");
  const notes = [
    queryNote(current),
    `${milliseconds.toFixed(0)} ms`,
    exact ? "" : "approximate",
    UNFOUND.exec(name)?.[1] ?? "",
  ];
  setHeading(count, notes.filter(Boolean).join(" · "));
  announce(count);
  if (state().heatmaps) heatmap.toggleAll(list.children, true);
  if (!matches.length)
    showMessage(
      "No matches",
      "No picture in the library is similar enough under these conditions.",
      relaxations(),
    );
  restoreFocus(list);
}

/** How the query was taken: feedback compares whole pictures, with or without parts. */
function queryNote({ box, parts, ...current }) {
  if (hasFeedback(current))
    return parts && library().parts ? "with feedback, by whole pictures" : "with feedback";
  return box ? "for the selected part" : "";
}

/** Whether the server gives more matches than were asked for, and the library has more. */
const mayAsk = () => shown.asked < Math.min(library().matches, library().images);

/** Show the matches as cards; those that are there in the same order already are kept. */
function showCards(list, matches) {
  const rows = [...list.querySelectorAll(".card")].map(({ dataset }) => Number(dataset.row));
  const kept = rows.length && rows.every((row, i) => row === matches[i]?.row) ? rows.length : 0;
  if (!kept || shown.asked === shown.count) list.replaceChildren();
  const first = list.children.length ? kept : 0;
  const weak = matches.findIndex(isWeak);
  matches.forEach((match, i) => {
    if (i < first) return cache(match);
    if (i === weak) list.append(...(i ? [grid.lineEnd()] : []), grid.weakLine(i === 0));
    list.append(grid.card(cache(match), state()));
  });
  selection.showMarks(list.querySelectorAll(".card"));
}

/** Whether a match is below the automatic threshold; that of parts is known by its percentile. */
function isWeak({ score, percentile, box }) {
  const auto = library().auto_threshold;
  if (auto === null) return false;
  const ownScale = box || state().text !== null; // parts and words
  return ownScale && percentile !== null ? percentile < AUTO_PERCENTILE : score < auto;
}

/** A liked match leaves the grid: the focus moves to the match that takes its place. */
function restoreFocus(list) {
  if (focusTarget === null) return;
  const cards = list.querySelectorAll(".card");
  const card = cards[Math.min(focusTarget.index, cards.length - 1)];
  const target = card?.querySelector(`[data-action=${focusTarget.action}]`) ?? byId("heading");
  target.focus({ preventScroll: true });
  focusTarget = null;
}
