// Entry point: connects the controls to the state, and renders the page on each change of state.

import * as browse from "./browse.js";
import * as detail from "./detail.js";
import * as collectionDialog from "./collectionDialog.js";
import { byId, plural, titleOf } from "./dom.js";
import * as failures from "./failures.js";
import * as feedback from "./feedback.js";
import * as filters from "./filters.js";
import * as grid from "./grid.js";
import * as heatmap from "./heatmap.js";
import * as help from "./help.js";
import { cached } from "./imageCache.js";
import { showSwitch } from "./librarySwitch.js";
import { swapLists } from "./messages.js";
import * as partSuggestions from "./partSuggestions.js";
import * as query from "./query.js";
import * as search from "./search.js";
import * as selection from "./selection.js";
import * as selectionBar from "./selectionBar.js";
import { library, loadLibrary, newJob, onLibrary, thumbnailUrl } from "./session.js";
import {
  canLike,
  clearQuery,
  hasQuery,
  searchFrom,
  state,
  subscribe,
  update,
} from "./state.js";
import * as upload from "./upload.js";
import * as uploads from "./uploads.js";

const TOGGLES = ["unique", "parts", "heatmaps"]; // keys of the state, and ids of their buttons

/** Run `action(signal)` as the one present job; a failure offers to run it again. */
async function attempt(action) {
  try {
    await action(newJob());
    failures.reset();
  } catch (error) {
    failures.handle(error, () => attempt(action));
  }
}

async function start(signal) {
  await loadLibrary(signal);
  render(state(), null);
}

function showLibrary({ images, urls, embeds, explains, parts, words, ...others }) {
  showSwitch(others);
  byId("size").textContent = plural(images, "picture");
  upload.describeBox({ words, urls: urls && embeds });
  document.body.classList.toggle("rows-only", !embeds);
  byId("welcome").textContent = embeds ? "Find pictures like yours" : "Find similar pictures";
  byId("lead").textContent = embeds
    ? "Drop a picture here, paste one, or start from any picture below."
    : "This library cannot be searched with new pictures. Choose any picture below.";
  byId("heatmaps").hidden = !explains;
  byId("parts").hidden = !parts;
  document.body.classList.toggle("no-heatmaps", !explains);
  filters.build({ images, ...others });
  filters.render(state());
}

function render(current, previous) {
  if (!library()) return;
  if (previous && !hasQuery(previous)) browse.saveScroll();
  renderControls(current);
  if (previous && hasQuery(current) && onlyDiffersIn("heatmaps", current, previous))
    heatmap.toggleAll(byId("matches").children, current.heatmaps);
  else if (hasQuery(current)) showSearch(current, previous);
  else {
    attempt(browse.show);
    if (previous && hasQuery(previous)) browse.restoreScroll();
  }
}

function renderControls(current) {
  const searching = hasQuery(current);
  swapLists(searching ? "matches" : "library"); // first: what is away is not styled anew
  byId("main").classList.toggle("searching", searching);
  for (const part of [document.querySelector(".sidebar"), document.querySelector(".toolbar"), byId("panel")])
    part.dataset.mode = searching ? "search" : "library";
  document.body.classList.toggle("no-likes", !canLike(current));
  for (const name of TOGGLES) byId(name).setAttribute("aria-pressed", String(current[name]));
  byId("choose-label").textContent = searching ? "Another picture" : "Choose a picture";
  filters.render(current);
  feedback.render(current, (row) => ({
    thumbnail: thumbnailUrl(row),
    name: cached(row) ? titleOf(cached(row)) : `picture ${row}`,
  }));
  grid.showLikes(byId("library"), current);
  selectionBar.render();
  upload.showError(null);
}

function showSearch(current, previous) {
  if (!previous || search.queryKey(current) !== search.queryKey(previous)) {
    scrollTo(0, 0);
    if (previous) byId("heading").focus({ preventScroll: true });
  }
  attempt(search.run);
}

function onlyDiffersIn(name, one, other) {
  return (
    one[name] !== other[name] &&
    JSON.stringify({ ...one, [name]: 0 }) === JSON.stringify({ ...other, [name]: 0 })
  );
}

function onCardAction(action, row, card, event) {
  if (action === "select") selection.toggle(card, event.shiftKey);
  else if (action === "search") searchFrom({ row });
  else if (action === "detail") detail.open(card);
  else if (action === "explain") heatmap.toggle(card, !heatmap.isOn(card));
  else {
    if (hasQuery()) search.focusNext([...byId("matches").querySelectorAll(".card")].indexOf(card), action);
    feedback.toggle(state(), `${action}d`, row);
  }
}

function onUpload({ file, ...typed }) {
  upload.showError(null);
  searchFrom(file ? { upload: uploads.add(file) } : typed);
}

function onEscape(event) {
  if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open]:not(#panel)"))
    return;
  if (filters.isOpen()) filters.setOpen(false);
  else if (selection.rows().length) selection.clear();
  else if (state().box) update({ box: null });
  else if (hasQuery()) clearQuery();
}

history.scrollRestoration = "manual";
subscribe(render);
onLibrary(showLibrary);
browse.listen((error) => failures.handle(error, () => attempt(browse.show)));
partSuggestions.listen(byId("query"));
query.onBox((box) => update({ box }, box && state().box ? "box" : null));
upload.listen(onUpload, library);
detail.listen();
help.listen();
search.onMore((next) => attempt(next));
for (const id of ["library", "matches"]) grid.listen(byId(id), onCardAction);
for (const name of TOGGLES)
  byId(name).addEventListener("click", () => update({ [name]: !state()[name] }, name));
byId("filters").addEventListener("click", () => filters.setOpen(!filters.isOpen()));
filters.listen();
collectionDialog.listen();
selection.onChange(selectionBar.render);
byId("home").addEventListener("click", (event) => {
  event.preventDefault();
  clearQuery();
});
addEventListener("keydown", onEscape);
attempt(start);
