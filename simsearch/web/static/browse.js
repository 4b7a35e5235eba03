// The library as a grid that loads more pictures as it is scrolled.

import * as api from "./api.js";
import { announce, byId, plural } from "./dom.js";
import * as grid from "./grid.js";
import { cache } from "./imageCache.js";
import * as lines from "./lines.js";
import { setHeading, showList, showMessage } from "./messages.js";
import * as query from "./query.js";
import { whereOf } from "./request.js";
import { currentSignal, library } from "./session.js";
import { hasFilters, hasQuery, state } from "./state.js";
import * as collections from "./collections.js";
import * as selection from "./selection.js";
import { relaxations } from "./suggestions.js";
import * as trail from "./trail.js";

const PAGE_SIZE = 60;
const SKELETONS = 12;
const FIRST_CARDS = 30; // of a page, at once; the others come a few in each frame, which stays short
const CARDS_A_FRAME = 10;
const FRAME_MS = 100; // at most, where the browser draws none

let listing = null; // {key, where, total, count} of the pictures in the grid
let loading = false;
let endInView = false;
let scrollTop = 0;

/** Load more as the end of the grid comes into view; `onError(error)` gets what fails. */
export function listen(onError) {
  const more = () => loadMore().catch(onError);
  byId("more").addEventListener("click", more);
  new IntersectionObserver(
    ([{ isIntersecting }]) => {
      endInView = isIntersecting;
      if (endInView) more();
    },
    { rootMargin: "600px" },
  ).observe(byId("more"));
  lines.watch(byId("library"));
}

/** Show the library, filtered; the loaded pictures are kept while the filters stay. */
export async function show(signal) {
  const where = whereOf(state());
  const key = JSON.stringify([library().version, where]);
  document.title = "simsearch";
  query.show(null, null);
  trail.hide();
  showList("library");
  const { collection } = state();
  if (collection !== null && !collections.paths(collection)?.length) return showNoCollection(collection);
  if (listing?.key !== key || listing.total === null) {
    listing = { key, where, total: null, count: 0 };
    lines.replace(byId("library"), grid.skeletons(SKELETONS));
    loading = false;
    await loadMore(signal);
  } else {
    showTotal();
    if (endInView) await loadMore(signal);
  }
}

/** Load the library again when it is next shown. */
export const reset = () => (listing = null);

export const saveScroll = () => (scrollTop = scrollY);
export const restoreScroll = () => scrollTo(0, scrollTop);

async function loadMore(signal = currentSignal()) {
  if (loading || !listing || listing.count === listing.total || hasQuery()) return;
  loading = true;
  const mine = listing;
  try {
    const { where } = mine;
    const page = await api.images({ offset: mine.count, limit: PAGE_SIZE, where }, signal);
    if (page.version !== library().version) throw new api.ApiError("The library has changed.", 409);
    await append(mine, page);
  } finally {
    if (mine === listing) loading = false;
  }
  if (endInView) await loadMore();
}

async function append(mine, { total, images }) {
  const isFirst = !mine.count;
  if (isFirst) byId("library").replaceChildren();
  mine.total = total;
  mine.count = images.length ? mine.count + images.length : total;
  if (isFirst) showTotal();
  for (let next = 0; next < images.length && mine === listing; ) {
    const portion = images.slice(next, next + (isFirst && !next ? FIRST_CARDS : CARDS_A_FRAME));
    const cards = portion.map((image) => grid.card(cache(image), state()));
    lines.append(byId("library"), cards);
    selection.showMarks(cards);
    next += portion.length;
    await nextFrame();
  }
  if (mine === listing) byId("more").hidden = mine.count === total;
}

/** Resolve in a task of its own, once the browser has drawn what is there. */
const nextFrame = () =>
  new Promise((resolve) => {
    requestAnimationFrame(() => setTimeout(resolve));
    setTimeout(resolve, FRAME_MS);
  });

function showNoCollection(name) {
  listing = null;
  byId("library").replaceChildren();
  setHeading("No pictures");
  const kept = collections.paths(name) !== null;
  const text = kept
    ? "No picture is left in it."
    : "Collections are kept in the browser that they were made in, and this one has none of that name.";
  showMessage(`The collection “${name}” is empty`, text, relaxations());
}

function showTotal() {
  const { total, count } = listing;
  if (hasFilters())
    setHeading(plural(total, "picture"), `of ${library().images.toLocaleString("en")}`);
  else setHeading("Library", "Click a picture to find similar ones");
  byId("more").hidden = count === total;
  if (total) announce(plural(total, "picture"));
  else
    showMessage(
      "No pictures found",
      "No picture in the library matches these filters.",
      relaxations(),
    );
}
