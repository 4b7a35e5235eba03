// Puts what is asked into the fields that the server takes. Draws nothing, and asks nothing.

import { asking, tasting, uploaded } from "./state.js";

/** What `where` of the server takes, or null for no condition. */
export function conditions({ folder, columns }) {
  const where = {};
  if (folder.length) where.folder = folder.map(literally);
  for (const [name, { from = null, to = null, is, has }] of Object.entries(columns)) {
    if (is) where[name] = is.map(literally);
    else if (has) where[name] = /[*?]/.test(has) ? has : `*${literally(has)}*`;
    else where[name] = { min: from, max: to };
  }
  return Object.keys(where).length ? where : null;
}

/** Text that a glob takes by the letter. */
export const literally = (text) => text.replace(/[*?[]/g, "[$&]");

/** ["search" or "recommend", FormData]; `original` is the address of the query's picture. */
export async function question(state, library, original) {
  const body = new FormData();
  body.set("version", library.version);
  body.set("k", Math.min(state.k, library.matches));
  if (state.threshold !== null) body.set("threshold", state.threshold);
  if (state.unique) body.set("unique", "true");
  const where = conditions(state);
  if (where) body.set("where", JSON.stringify(where));
  if (!tasting(state)) {
    put(body, state, "row", "image");
    if (state.box) body.set("box", state.box.join(","));
    return ["search", body];
  }
  await like(body, state, original);
  for (const side of ["liked", "disliked"]) for (const row of state[side]) body.append(side, row);
  return ["recommend", body];
}

/** The query itself is liked, or the part of it that is marked. */
async function like(body, state, original) {
  if (!asking(state) || state.url !== null) return; // an address cannot be liked, only searched from
  if (!state.box) return put(body, state, "liked", "liked_image");
  body.append("liked_image", await part(original, state.box), "part.png");
  if (state.row !== null) body.append("exclude", state.row);
}

function put(body, state, row, image) {
  if (state.row !== null) body.append(row, state.row);
  else if (state.url !== null) body.append("url", state.url);
  else body.append(image, uploaded(state.upload));
}

/** The marked part of a picture, cut out without loss. */
async function part(original, [left, top, right, bottom]) {
  const picture = new Image();
  picture.src = original;
  await picture.decode();
  const { naturalWidth: width, naturalHeight: height } = picture;
  const edges = [left * width, top * height, right * width, bottom * height].map(Math.round);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, edges[2] - edges[0]);
  canvas.height = Math.max(1, edges[3] - edges[1]);
  canvas.getContext("2d").drawImage(picture, -edges[0], -edges[1]);
  return new Promise((resolve) => canvas.toBlob(resolve));
}
