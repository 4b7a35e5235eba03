// Collections of pictures, by path, kept in this browser. Sends nothing.

const KEY = "collections";
export const MAX_PICTURES = 100; // that the server lists at once

function read() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY)) ?? {};
    return typeof found === "object" && !Array.isArray(found) ? found : {};
  } catch {
    return {}; // storage is disabled, or was edited
  }
}

function write(collections) {
  try {
    localStorage.setItem(KEY, JSON.stringify(collections));
    return true;
  } catch {
    return false; // storage is disabled or full
  }
}

export const names = () => Object.keys(read()).sort((a, b) => a.localeCompare(b));

/** The paths of a collection; null if this browser has none of that name. */
export function paths(name) {
  const found = read()[name];
  return Array.isArray(found) ? found.filter((path) => typeof path === "string") : null;
}

/** Add paths to a collection, which is made if there is none; the reason if that cannot be. */
export function add(name, added) {
  const collections = read();
  const kept = [...new Set([...(paths(name) ?? []), ...added])];
  if (kept.length > MAX_PICTURES)
    return `A collection holds up to ${MAX_PICTURES} pictures; this one would have ${kept.length}.`;
  const stored = write({ ...collections, [name]: kept });
  return stored ? null : "This browser keeps no data for this page, so that no collection can be stored.";
}

/** Take paths out of a collection. */
export function take(name, taken) {
  write({ ...read(), [name]: (paths(name) ?? []).filter((path) => !taken.includes(path)) });
}

export function remove(name) {
  const { [name]: _, ...others } = read();
  write(others);
}
