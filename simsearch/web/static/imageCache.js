// Images that the page has received, by row. Row numbers change when a library is embedded again:
// `relocate` then finds each image by its path.

import * as api from "./api.js";
import { escapeGlob } from "./request.js";

let images = new Map();

export const cached = (row) => images.get(row);

export function cache(image) {
  images.set(image.row, image);
  return image;
}

/** The new rows of lists of old rows; images that are no longer in the library are left out. */
export function relocate(lists, signal) {
  const previous = images;
  images = new Map();
  const newRow = async (row) => {
    const path = previous.get(row)?.path;
    if (path === undefined) return null;
    const where = { path: escapeGlob(path) };
    const found = await api.images({ offset: 0, limit: 1, where }, signal);
    return found.images.length ? cache(found.images[0]).row : null;
  };
  return Promise.all(
    lists.map(async (rows) => (await Promise.all(rows.map(newRow))).filter((row) => row !== null)),
  );
}
