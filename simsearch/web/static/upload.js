// Ways to give a query image: drop, paste, choose a file, take a photo, or type a URL.
// Checks the type and shrinks what is too large before anything is sent; sends nothing.

import { byId } from "./dom.js";
import { dropAlert } from "./messages.js";
import { fitted } from "./shrink.js";

const MIB = 2 ** 20;
const UNLIMITED = { bytes: Infinity, pixels: Infinity };
const OWN_DRAG = "application/x-simsearch"; // marks what is dragged from this page itself

/** Call `onQuery({file})`, `onQuery({url})` or `onQuery({text})` for each query. */
export function listen(onQuery, library) {
  let latest = null; // a file that takes long to shrink does not replace a newer one
  const onFile = async (file) => {
    latest = file;
    const error = validationError(file, library());
    const sent = error ? null : await fitted(file, library()?.limits ?? UNLIMITED);
    if (latest !== file) return;
    showError(error ?? (sent ? null : sizeError(file, library())));
    if (sent) onQuery({ file: sent });
  };
  const receive = (data) => {
    const file = [...data.files].find((each) => each.type.startsWith("image/")) || data.files[0];
    const url = file || !library()?.urls ? null : urlIn(data);
    if (file) onFile(file);
    else if (url) onQuery({ url });
    return Boolean(file || url);
  };
  listenToInputs(onFile, onQuery, library);
  listenToPaste(receive);
  listenToDrops(receive);
}

export function showError(text) {
  byId("upload-error").textContent = text || "";
  byId("upload-error").hidden = !text;
  if (text) dropAlert(); // that of an earlier file
}

function validationError(file, library) {
  if (file.type && !file.type.startsWith("image/"))
    return `“${file.name}” is not a picture. Choose an image file, such as JPEG, PNG or WebP.`;
  if (file.size === 0) return `“${file.name}” is empty. Choose another picture.`;
  if (library && !library.embeds)
    return "This library cannot be searched with new pictures. Choose one of its own.";
  return null;
}

const sizeError = (file, { limits }) =>
  `“${file.name}” is ${(file.size / MIB).toFixed(1)} MB; the limit is ` +
  `${(limits.bytes / MIB).toFixed(0)} MB, and this browser cannot make a smaller copy. ` +
  "Save a smaller one, then try again.";

function urlIn(data) {
  const text = data.getData("text/uri-list") || data.getData("text/plain");
  const url = text.trim().split("\n")[0];
  return /^https?:\/\/\S+$/.test(url) ? url : null;
}

/** Say in the box for words and addresses what it takes; without either it is hidden. */
export function describeBox({ words, urls }) {
  const what = [words && "describe it", urls && "paste a link"].filter(Boolean);
  byId("url-form").hidden = !what.length;
  byId("asked").placeholder = `or ${what.join(", or ")}`;
  byId("asked-label").textContent = words ? "Words, or the address of an image" : "Address of an image";
}

/** What was typed, as a query: {url} or {text}; {error} where the library takes no such thing. */
function typedQuery(typed, { urls, words }) {
  const isAddress = /^https?:\/\/\S+$/i.test(typed);
  if (isAddress && urls) return { url: typed };
  if (isAddress) return { error: "This server fetches no pictures from addresses. Choose a file." };
  if (!words) return { error: "This is not the address of a picture: an address starts with https://" };
  return /[\p{L}\p{N}\p{S}]/u.test(typed) ? { text: typed } : { error: "Type a word or more, such as: red car" };
}

function listenToInputs(onFile, onQuery, library) {
  for (const id of ["choose", "take-photo"])
    byId(id).addEventListener("change", (event) => {
      const [file] = event.target.files;
      event.target.value = ""; // so that the same file can be chosen again
      if (file) onFile(file);
    });
  byId("url-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const { error, ...query } = typedQuery(byId("asked").value.trim(), library());
    if (error) showError(error);
    else onQuery(query);
  });
}

function listenToPaste(receive) {
  addEventListener("paste", (event) => {
    if (event.target.closest?.("input:not([type=file]), textarea")) return; // pasted as text
    if (receive(event.clipboardData)) event.preventDefault();
    else showError("There is no picture in the clipboard. Copy one, then paste again.");
  });
}

function listenToDrops(receive) {
  const dropZone = byId("drop-zone");
  const isForeign = (event) => !event.dataTransfer.types.includes(OWN_DRAG);
  addEventListener("dragstart", (event) => event.dataTransfer.setData(OWN_DRAG, "1"));
  addEventListener("dragover", (event) => {
    if (!isForeign(event)) return;
    event.preventDefault();
    dropZone.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) dropZone.hidden = true;
  });
  addEventListener("drop", (event) => {
    dropZone.hidden = true;
    if (!isForeign(event)) return;
    event.preventDefault();
    if (!receive(event.dataTransfer)) showError("That is not a picture. Drop an image file.");
  });
}
