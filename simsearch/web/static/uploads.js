// The uploaded query pictures: in memory, and in the browser's own storage, so that a reload and
// the back button find them again. They leave the browser only as a search.

const DATABASE = "simsearch";
const STORE = "uploads";
const MAX_STORED = 20; // the latest ones

const files = new Map();
const pageId = Date.now().toString(36); // tells uploads of this page from those of an earlier one

/** Open the browser's database; null where there is none, such as in a private window. */
function open() {
  return new Promise((resolve) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(null);
  });
}

/** Run `use(store)`, and resolve to its result; null where the storage cannot be used. */
async function withStore(mode, use) {
  const database = await open().catch(() => null);
  if (!database) return null;
  return new Promise((resolve) => {
    const transaction = database.transaction(STORE, mode);
    const request = use(transaction.objectStore(STORE));
    transaction.oncomplete = () => resolve(request.result ?? null);
    transaction.onabort = () => resolve(null); // such as with a full disk: memory still has it
  }).finally(() => database.close());
}

/** Keep a file; return its name. */
export function add(file) {
  const name = `${pageId}-${files.size + 1}`;
  files.set(name, file);
  withStore("readwrite", (store) => store.put(file, name)).then(prune);
  return name;
}

/** The file of a name, if it is in memory. */
export const get = (name) => files.get(name);

/** Bring a file back into memory, if the browser still has it. */
export async function restore(name) {
  if (name === null || files.has(name)) return;
  const file = await withStore("readonly", (store) => store.get(name));
  if (file) files.set(name, file);
}

/** Names sort by the time of their page; those of one page by their number. */
async function prune() {
  const names = (await withStore("readonly", (store) => store.getAllKeys())) ?? [];
  const parts = (name) => [name.split("-")[0], Number(name.split("-")[1])];
  const inOrder = (a, b) => {
    const [[page, number], [other, count]] = [parts(a), parts(b)];
    return page === other ? number - count : page < other ? -1 : 1;
  };
  for (const old of names.sort(inOrder).slice(0, -MAX_STORED))
    await withStore("readwrite", (store) => store.delete(old));
}
