// Images by row, as far as the page has met them. In a library that has been embedded again rows
// are other images: each is found again by its path.

import * as api from "./api.js";
import { literally } from "./question.js";

let images = new Map();

export const met = (row) => images.get(row);

export function remember(image) {
  images.set(image.row, image);
  return image;
}

/** Where rows of the last library are now, list by list; what has gone is left out. */
export function follow(lists, signal) {
  const before = images;
  images = new Map();
  const place = async (row) => {
    const path = before.get(row)?.path;
    if (path === undefined) return null;
    const where = { path: literally(path) };
    const found = await api.images({ offset: 0, limit: 1, where }, signal);
    return found.images.length ? remember(found.images[0]).row : null;
  };
  return Promise.all(
    lists.map(async (rows) => (await Promise.all(rows.map(place))).filter((row) => row !== null)),
  );
}
