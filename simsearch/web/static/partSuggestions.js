// Parts of the query picture that the server suggests. They are an aid: without an answer there are
// none, and nobody is told.

import * as api from "./api.js";
import { library } from "./session.js";
import * as uploads from "./uploads.js";

let asked = null; // key of the query that was asked about last
let parts = []; // the answer
let job = new AbortController();

const keyOf = ({ row, upload }) => JSON.stringify([library().version, row, upload]);

/** Before another query is shown: an answer about the last one comes too late. */
export function leave(current) {
  if (keyOf(current) === asked) return;
  job.abort();
  asked = null;
}

/** Ask about a query {row, upload}, once for each, and call `onParts(boxes)`. */
export async function load(current, onParts) {
  const { row, upload } = current;
  const key = keyOf(current);
  if (key === asked) return onParts(parts);
  [asked, parts] = [key, []];
  job.abort();
  job = new AbortController();
  onParts(parts);
  const image = row === null ? uploads.get(upload) : null;
  if (!library().embeds || (row === null && !image)) return;
  const body = new FormData();
  body.set("version", library().version);
  if (image) body.set("image", image);
  else body.set("row", row);
  const { signal } = job;
  try {
    const found = await api.suggestedParts(body, signal);
    if (signal.aborted) return;
    parts = found;
    onParts(parts);
  } catch {
    // the search itself says what is wrong
  }
}
