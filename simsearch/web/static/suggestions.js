// Buttons that offer a way out of an empty result or an error.

import { byId } from "./dom.js";
import * as feedback from "./feedback.js";
import * as filters from "./filters.js";
import { actionButton } from "./messages.js";
import { clearQuery, hasFeedback, hasFilters, hasQuery, state, update } from "./state.js";

export const choosePicture = () => actionButton("Choose a picture", () => byId("choose").click());
export const backToLibrary = () => actionButton("Back to the library", clearQuery);
export const clearFilters = () =>
  hasFilters() ? actionButton("Clear filters", filters.clear) : null;

/** One button for each condition that can be relaxed; null for those not in use. */
export function relaxations() {
  const { threshold, box } = state();
  return [
    threshold !== null && hasQuery()
      ? actionButton("Allow any similarity", () => update({ threshold: null }))
      : null,
    clearFilters(),
    box ? actionButton("Use the whole picture", () => update({ box: null })) : null,
    hasFeedback() ? actionButton("Clear likes and dislikes", feedback.clear) : null,
  ];
}
