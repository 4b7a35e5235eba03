// The state of the page: query, settings, feedback and filters, kept in the URL.
// Uploaded files cannot be in a URL: `uploads.js` keeps them under a name.

const DEFAULTS = {
  row: null, // the query: a row of the library,
  upload: null, // or the name of an uploaded file,
  url: null, // or the URL of an image,
  text: null, // or words
  box: null, // [left, top, right, bottom], fractions of the query image
  k: 24,
  threshold: null, // a cosine, or "auto"
  unique: false,
  heatmaps: false,
  parts: false, // whether pictures are found by their parts, too
  liked: [],
  disliked: [],
  folders: [],
  columns: {}, // name: {from, to} or {is: [...]} or {has: "..."}
  collection: null, // name of a collection that the library is limited to
  likes: false, // whether the liked pictures are the query
};
const NO_QUERY = {
  ...{ row: null, upload: null, url: null, text: null },
  ...{ box: null, liked: [], disliked: [], likes: false },
};
const FLAGS = { unique: "unique", heatmaps: "heat", parts: "parts", likes: "likes" }; // state key: URL parameter
const COLUMN_PARAMETERS = { from: Number, to: Number, has: String };

let current = parse(location.search);
let lastMergeKey = null;
let notify = () => {};

export const state = () => current;
/** Whether there is a query of its own; liked pictures alone can be the query as well. */
export const hasOwnQuery = ({ row, upload, url, text } = current) =>
  [row, upload, url, text].some((query) => query !== null);
export const hasQuery = (given = current) =>
  hasOwnQuery(given) || (given.likes && given.liked.length > 0);
export const hasFilters = ({ folders, columns, collection } = current) =>
  folders.length > 0 || Object.keys(columns).length > 0 || collection !== null;
export const hasThreshold = (given = current) => given.threshold !== null && hasQuery(given);
export const hasFeedback = ({ liked, disliked } = current) => liked.length + disliked.length > 0;
export const canLike = ({ url } = current) => url === null; // recommending takes no address

/** Change the state. Consecutive changes with the same `mergeKey` make one history entry. */
export function update(change, mergeKey = null) {
  const previous = current;
  current = { ...previous, ...change };
  const merge = mergeKey !== null && mergeKey === lastMergeKey;
  lastMergeKey = mergeKey;
  if (serialize(current) !== serialize(previous))
    history[merge ? "replaceState" : "pushState"](null, "", serialize(current) || location.pathname);
  notify(current, previous);
}

/** Search with a new query; the box and the feedback belonged to the last one. */
export const searchFrom = (query) => update({ ...NO_QUERY, ...query });

/** Open a search that `location.search` was once. */
export const openSearch = (search) => update(parse(search));

/** Go back to the library. */
export const clearQuery = () => update(NO_QUERY);

/** Call `listener(state, previous)` on each change, including the browser's back button. */
export function subscribe(listener) {
  notify = listener;
  addEventListener("popstate", () => {
    const previous = current;
    current = parse(location.search);
    lastMergeKey = null;
    if (serialize(current) !== serialize(previous)) notify(current, previous); // else a #fragment
  });
}

/** The URL of a search from a row, with the present filters and settings. */
export const searchUrl = (row) => serialize({ ...current, ...NO_QUERY, row });

function parse(search) {
  const given = new URLSearchParams(search);
  const rows = (name) =>
    (given.get(name) || "")
      .split(",")
      .filter((row) => /^\d+$/.test(row))
      .map(Number);
  const box = (given.get("box") || "").split(",").map(Number);
  const threshold = given.get("threshold");
  return {
    ...DEFAULTS,
    row: rows("row")[0] ?? null,
    upload: given.get("upload"),
    url: given.get("url"),
    text: given.get("text"),
    box: box.length === 4 && box.every((edge) => edge >= 0 && edge <= 1) ? box : null,
    k: Math.max(1, Math.round(Number(given.get("k"))) || DEFAULTS.k),
    threshold: threshold === "auto" ? threshold : parseNumber(threshold),
    unique: given.has(FLAGS.unique),
    heatmaps: given.has(FLAGS.heatmaps),
    parts: given.has(FLAGS.parts),
    likes: given.has(FLAGS.likes),
    liked: rows("liked"),
    disliked: rows("disliked"),
    folders: given.getAll("folder"),
    collection: given.get("collection"),
    columns: parseColumns(given),
  };
}

function parseNumber(text) {
  const value = text ? Number(text) : NaN;
  return Number.isFinite(value) ? value : null;
}

function parseColumns(given) {
  const columns = {};
  for (const [key, value] of given) {
    const [, part, name] = /^(from|to|is|has)\.(.+)$/s.exec(key) || [];
    if (!part || (COLUMN_PARAMETERS[part] === Number && parseNumber(value) === null)) continue;
    columns[name] ??= {};
    if (part === "is") (columns[name].is ??= []).push(value);
    else columns[name][part] = COLUMN_PARAMETERS[part](value);
  }
  return columns;
}

function serialize(from) {
  const given = new URLSearchParams();
  for (const name of ["row", "upload", "url", "text", "threshold", "collection"])
    if (from[name] !== null) given.set(name, from[name]);
  if (from.box) given.set("box", from.box.map((edge) => Number(edge.toFixed(4))).join(","));
  if (from.k !== DEFAULTS.k) given.set("k", from.k);
  for (const [name, parameter] of Object.entries(FLAGS)) if (from[name]) given.set(parameter, 1);
  for (const name of ["liked", "disliked"])
    if (from[name].length) given.set(name, from[name].join(","));
  for (const folder of from.folders) given.append("folder", folder);
  for (const [name, parts] of Object.entries(from.columns))
    for (const [part, values] of Object.entries(parts))
      for (const value of [values].flat()) given.append(`${part}.${name}`, value);
  const text = given.toString().replaceAll("%2C", ",").replaceAll("%2F", "/");
  return text && `?${text}`;
}
