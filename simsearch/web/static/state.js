// What is asked, as the address bar holds it. The page is drawn from this alone; nothing here draws.
// Uploaded images cannot be in an address: they live in memory, for as long as the page does.

const START = {
  row: null, // the query: a row of the library,
  upload: null, // or the name of an uploaded image,
  url: null, // or an image's address
  box: null, // [left, top, right, bottom], fractions of the query
  k: 24,
  threshold: null, // a cosine, or "auto"
  unique: false,
  heat: false,
  liked: [],
  disliked: [],
  folder: [],
  columns: {}, // name: {from, to} or {is: [...]} or {has: "..."}
};
const PARTS = { from: Number, to: Number, has: String };

const uploads = new Map();
const born = Date.now().toString(36); // an upload of an earlier page is not one of this
let current = read(location.search);
let merged = null;
let hear = () => {};

export const state = () => current;
export const asking = ({ row, upload, url } = current) =>
  row !== null || upload !== null || url !== null;
export const filtering = ({ folder, columns } = current) =>
  folder.length > 0 || Object.keys(columns).length > 0;
export const tasting = ({ liked, disliked } = current) => liked.length + disliked.length > 0;
export const uploaded = (name) => uploads.get(name);

/** Remember an uploaded image; return its name. */
export function keep(file) {
  const name = `${born}-${uploads.size + 1}`;
  uploads.set(name, file);
  return name;
}

/** Change what is asked. Changes in a row with the same `merge` make one entry of the history. */
export function go(change, merge = null) {
  const before = current;
  current = { ...before, ...change };
  const same = merge !== null && merge === merged;
  merged = merge;
  if (write(current) !== write(before))
    history[same ? "replaceState" : "pushState"](null, "", write(current) || "/");
  hear(current, before);
}

/** Ask from another image: the part and the taste were about the last one. */
export const from = (query) =>
  go({ row: null, upload: null, url: null, box: null, liked: [], disliked: [], ...query });

/** Call `listener(state, before)` at each change, the back button's too. */
export function watch(listener) {
  hear = listener;
  addEventListener("popstate", () => {
    const before = current;
    current = read(location.search);
    merged = null;
    if (write(current) !== write(before)) hear(current, before); // not for a link within the page
  });
}

/** The address of a search from a row, with the filters and settings of now. */
export const addressOf = (row) =>
  write({ ...current, row, upload: null, url: null, box: null, liked: [], disliked: [] });

function read(search) {
  const given = new URLSearchParams(search);
  const rows = (name) =>
    (given.get(name) || "")
      .split(",")
      .filter((row) => /^\d+$/.test(row))
      .map(Number);
  const box = (given.get("box") || "").split(",").map(Number);
  const threshold = given.get("threshold");
  return {
    ...START,
    row: rows("row")[0] ?? null,
    upload: given.get("upload"),
    url: given.get("url"),
    box: box.length === 4 && box.every((side) => side >= 0 && side <= 1) ? box : null,
    k: Math.max(1, Math.round(Number(given.get("k"))) || START.k),
    threshold: threshold === "auto" ? threshold : number(threshold),
    unique: given.has("unique"),
    heat: given.has("heat"),
    liked: rows("liked"),
    disliked: rows("disliked"),
    folder: given.getAll("folder"),
    columns: readColumns(given),
  };
}

function number(text) {
  const value = text ? Number(text) : NaN;
  return Number.isFinite(value) ? value : null;
}

function readColumns(given) {
  const columns = {};
  for (const [key, value] of given) {
    const [, part, name] = /^(from|to|is|has)\.(.+)$/s.exec(key) || [];
    if (!part || (part in PARTS && PARTS[part] === Number && number(value) === null)) continue;
    columns[name] ??= {};
    if (part === "is") (columns[name].is ??= []).push(value);
    else columns[name][part] = PARTS[part](value);
  }
  return columns;
}

function write(from) {
  const given = new URLSearchParams();
  for (const name of ["row", "upload", "url", "threshold"])
    if (from[name] !== null) given.set(name, from[name]);
  if (from.box) given.set("box", from.box.map((side) => Number(side.toFixed(4))).join(","));
  if (from.k !== START.k) given.set("k", from.k);
  for (const name of ["unique", "heat"]) if (from[name]) given.set(name, 1);
  for (const name of ["liked", "disliked"])
    if (from[name].length) given.set(name, from[name].join(","));
  for (const folder of from.folder) given.append("folder", folder);
  for (const [name, parts] of Object.entries(from.columns))
    for (const [part, value] of Object.entries(parts))
      for (const one of [value].flat()) given.append(`${part}.${name}`, one);
  const text = given.toString().replaceAll("%2C", ",").replaceAll("%2F", "/");
  return text && `?${text}`;
}
