// What happens when a request fails: an error message, a wait for a server that is gone, or a
// reload of a library that has changed.

import * as api from "./api.js";
import * as browse from "./browse.js";
import { announce, byId } from "./dom.js";
import * as imageCache from "./imageCache.js";
import { actionButton, hide, setHeading, showBanner, showMessage } from "./messages.js";
import * as query from "./query.js";
import * as selection from "./selection.js";
import { currentSignal, library, loadLibrary } from "./session.js";
import { hasQuery, state, update } from "./state.js";
import { backToLibrary, choosePicture, clearFilters } from "./suggestions.js";
import * as upload from "./upload.js";

const HEADINGS = {
  404: "Picture not found",
  413: "The picture is too large",
  422: "This search is not possible",
  503: "The server is busy",
};
const NO_ANSWER = "The server is running, but its answer does not arrive. Try another picture.";
const MAX_LOST_ANSWERS = 4; // in a row

let lostAnswers = 0;

/** Forget earlier failures, after a success. */
export const reset = () => (lostAnswers = 0);

/** Handle the error of a request; `retry()` sends it again. */
export function handle(error, retry) {
  if (api.isAbort(error)) return;
  if (error.status === 0) waitForServer(retry);
  else if (error.status === 409) reload(retry);
  else showError(error, retry);
}

function showError(error, retry) {
  if (!(error instanceof api.ApiError)) console.error(error); // a bug of this page
  if (error.status === 404) query.show(null, null);
  if (!hasQuery()) browse.reset();
  const list = byId(hasQuery() ? "matches" : "library");
  list.removeAttribute("aria-busy");
  list.replaceChildren();
  setHeading("No results");
  const actions = [
    error.status >= 500 ? actionButton("Try again", retry) : null,
    hasQuery() ? choosePicture() : null,
    hasQuery() ? backToLibrary() : null,
    clearFilters(),
  ];
  const text = error.message.charAt(0).toUpperCase() + error.message.slice(1);
  showMessage(HEADINGS[error.status] ?? "The server could not answer", text, actions, "alert");
}

/** The server does not answer: show a banner, and continue once it is back. */
async function waitForServer(retry) {
  lostAnswers += 1;
  if (lostAnswers > MAX_LOST_ANSWERS) return showError(new api.ApiError(NO_ANSWER, 502), retry);
  showBanner(
    "The server does not answer. This page continues by itself once the server is back.",
    actionButton("Try now", retry),
  );
  try {
    await api.serverIsBack(currentSignal());
  } catch {
    return; // aborted by a newer request
  }
  hide("banner");
  announce("The server is back.");
  if (document.querySelector("#library .broken")) browse.reset();
  reload(retry);
}

/** Load the description of the library again; if the library changed, find its rows by path. */
async function reload(retry) {
  const previous = library();
  if (!previous) return retry();
  const signal = currentSignal();
  try {
    await loadLibrary(signal);
    if (previous.version !== library().version) await relocate(signal);
    else retry();
  } catch (error) {
    handle(error, () => reload(retry));
  }
}

async function relocate(signal) {
  const current = state();
  const queryRows = current.row === null ? [] : [current.row];
  const lists = [queryRows, current.liked, current.disliked];
  const [[row = null], liked, disliked] = await imageCache.relocate(lists, signal);
  browse.reset();
  selection.clear(); // row numbers are those of the library before
  update({ row, liked, disliked }, "relocate");
  if (queryRows.length && row === null)
    upload.showError("The library has changed, and that picture is no longer in it.");
}
