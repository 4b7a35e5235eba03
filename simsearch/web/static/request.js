// Turns the state of the page into the form fields of the API. Sends nothing.

import * as collections from "./collections.js";
import { hasFeedback, hasOwnQuery } from "./state.js";
import * as uploads from "./uploads.js";

/** The API's `where`, or null without filters. */
export function whereOf({ folders, columns, collection }) {
  const where = {};
  if (folders.length) where.folder = folders.flatMap(folderGlobs);
  for (const [name, { from = null, to = null, is, has }] of Object.entries(columns)) {
    if (is) where[name] = is.map(escapeGlob);
    else if (has) where[name] = /[*?]/.test(has) ? has : `*${escapeGlob(has)}*`;
    else where[name] = { min: from, max: to };
  }
  if (collection !== null) where.path = (collections.paths(collection) ?? []).map(escapeGlob);
  return Object.keys(where).length ? where : null;
}

/** A folder with a slash at its end stands for those in it, too. */
const folderGlobs = (name) =>
  name.endsWith("/") ? [escapeGlob(name.slice(0, -1)), `${escapeGlob(name)}*`] : [escapeGlob(name)];

/** Text that a glob matches literally. */
export const escapeGlob = (text) => text.replace(/[*?[]/g, "[$&]");

/** {endpoint: "search" or "recommend", body: FormData}; `original` is the URL of the query image. */
export async function buildRequest(state, library, original) {
  const body = new FormData();
  body.set("version", library.version);
  body.set("k", Math.min(state.k, library.matches));
  if (state.threshold !== null) body.set("threshold", state.threshold);
  if (state.unique) body.set("unique", "true");
  const where = whereOf(state);
  if (where) body.set("where", JSON.stringify(where));
  if (!hasFeedback(state)) {
    appendQuery(body, state, "row", "image", "text");
    if (state.box) body.set("box", state.box.join(","));
    if (state.parts && library.parts) body.set("parts", "true");
    return { endpoint: "search", body };
  }
  await appendLikedQuery(body, state, original);
  for (const name of ["liked", "disliked"]) for (const row of state[name]) body.append(name, row);
  return { endpoint: "recommend", body };
}

/** With feedback the query, or its selected part, is one of the liked images. */
async function appendLikedQuery(body, state, original) {
  if (!hasOwnQuery(state) || state.url !== null) return; // /api/recommend takes no URL
  if (!state.box) return appendQuery(body, state, "liked", "liked_image", "liked_text");
  body.append("liked_image", await cropped(original, state.box), "part.png");
  if (state.row !== null) body.append("exclude", state.row);
}

function appendQuery(body, state, rowField, fileField, textField) {
  if (state.row !== null) body.append(rowField, state.row);
  else if (state.text !== null) body.append(textField, state.text);
  else if (state.url !== null) body.append("url", state.url);
  else body.append(fileField, uploads.get(state.upload));
}

/** A part of an image, as a PNG. */
async function cropped(original, [left, top, right, bottom]) {
  const image = new Image();
  image.src = original;
  await image.decode();
  const { naturalWidth: width, naturalHeight: height } = image;
  const edges = [left * width, top * height, right * width, bottom * height].map(Math.round);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, edges[2] - edges[0]);
  canvas.height = Math.max(1, edges[3] - edges[1]);
  canvas.getContext("2d").drawImage(image, -edges[0], -edges[1]);
  return new Promise((resolve) => canvas.toBlob(resolve));
}
