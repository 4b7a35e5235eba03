// Parts of the query picture that the server suggests: each time several passes through its network.
// So they are asked for when somebody turns to the picture, or stays with it. They are an aid:
// without an answer there are none, and nobody is told.

import * as api from "./api.js";
import { library } from "./session.js";
import * as uploads from "./uploads.js";

const STAY_MS = 2000; // with a query, before its parts are asked for

let asked = null; // key of the query that was asked about last
let ask = () => {}; // asks about the present query
let timer = null;
let parts = []; // the answer
let job = new AbortController();

const keyOf = ({ row, upload }) => JSON.stringify([library().version, row, upload]);

/** Before another query is shown: an answer about the last one comes too late. */
export function leave(current) {
  if (keyOf(current) === asked) return;
  job.abort();
  asked = null;
  settle();
}

/** Ask at once as the pointer or the focus comes to the element of the query. */
export function listen(element) {
  for (const event of ["pointerenter", "focusin"])
    element.addEventListener(event, () => ask());
}

/** Ask about a query {row, upload}, once for each, when it is looked at; calls `onParts(boxes)`. */
export function load(current, onParts) {
  const key = keyOf(current);
  if (key === asked) return onParts(parts);
  [asked, parts] = [key, []];
  job.abort();
  job = new AbortController();
  onParts(parts);
  settle();
  ask = () => {
    settle();
    request(current, onParts);
  };
  timer = setTimeout(() => ask(), STAY_MS);
}

/** Ask no more. */
function settle() {
  clearTimeout(timer);
  ask = () => {};
}

async function request({ row, upload }, onParts) {
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
