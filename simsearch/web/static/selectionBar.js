// The bar at the foot of the window: what to do with the selected and with the liked pictures.

import * as collectionDialog from "./collectionDialog.js";
import * as collections from "./collections.js";
import { announce, button, byId, el, plural } from "./dom.js";
import * as exports from "./exports.js";
import * as feedback from "./feedback.js";
import * as selection from "./selection.js";
import { canLike, hasQuery, searchFrom, state, update } from "./state.js";

let job = null; // of a ZIP that is being made

/** Show the bar for the present selection and state. */
export function render() {
  const chosen = selection.rows().length;
  const liked = hasQuery() ? 0 : state().liked.length;
  const bar = byId("selection");
  const focused = document.activeElement?.dataset.bar;
  bar.replaceChildren(...(chosen ? forSelected(chosen) : liked ? forLiked(liked) : []));
  bar.hidden = !chosen && !liked;
  document.body.classList.toggle("selecting", chosen > 0);
  byId("main").classList.toggle("with-bar", !bar.hidden);
  if (focused) bar.querySelector(`[data-bar="${focused}"]`)?.focus();
}

const action = (text, name, onclick, properties = {}) =>
  button(text, { "data-bar": name, onclick, ...properties });

function forSelected(count) {
  const { collection } = state();
  return [
    el("b", {}, `${count.toLocaleString("en")} selected`),
    action("Clear", "clear", selection.clear, { className: "quiet" }),
    action("Find similar", "similar", findSimilar, { className: "button primary" }),
    action("CSV", "csv", () => exports.save(exports.csv(selection.images()), "pictures.csv", "text/csv"), {
      title: "Save a table of these pictures",
    }),
    action("Paths", "paths", () => exports.save(exports.paths(selection.images()), "paths.txt", "text/plain"), {
      title: "Save a list of their paths",
    }),
    action("ZIP", "zip", saveZip, { title: "Save the originals in one file" }),
    action("Add to a collection", "collect", () => collectionDialog.open(selection.images())),
    collection ? action("Remove from the collection", "take", () => takeOut(collection)) : "",
  ];
}

const forLiked = (count) => [
  el("b", {}, `${count.toLocaleString("en")} liked`),
  action("Find pictures like these", "likes", () => update({ likes: true }), {
    className: "button primary",
  }),
  action("Clear", "clear", feedback.clear, { className: "quiet" }),
];

/** Search with one picture, or with the likes of several. */
function findSimilar() {
  const rows = selection.rows();
  if (rows.length > 1 && canLike()) searchFrom({ liked: rows.slice(0, 30), likes: true });
  else searchFrom({ row: rows[0] });
  selection.clear();
}

function takeOut(collection) {
  collections.take(collection, selection.images().map(({ path }) => path));
  selection.clear();
  update({ collection: null });
  update({ collection });
}

async function saveZip() {
  const images = selection.images();
  const say = (text) => {
    byId("selection").querySelector("[data-bar=zip]").textContent = text;
    announce(text);
  };
  if (job) return job.abort();
  if (images.length > exports.MAX_FILES)
    return say(`Up to ${exports.MAX_FILES} pictures fit into a ZIP`);
  job = new AbortController();
  try {
    const progress = (done) => say(`${done} of ${images.length} – press to stop`);
    exports.save(await exports.originals(images, job.signal, progress), "pictures.zip");
    say("Saved");
  } catch (error) {
    say(job.signal.aborted ? "Stopped" : error.message);
  } finally {
    job = null;
  }
}
