// Ways to give a query image: drop, paste, choose a file, take a photo, or type a URL.
// Checks size and type before anything is sent; sends nothing.

import { byId } from "./dom.js";

const MIB = 2 ** 20;
const OWN_DRAG = "application/x-simsearch"; // marks what is dragged from this page itself

/** Call `onQuery({file})` or `onQuery({url})` for each query; `library()` gives the limits. */
export function listen(onQuery, library) {
  const onFile = (file) => {
    const error = validationError(file, library());
    showError(error);
    if (!error) onQuery({ file });
  };
  const receive = (data) => {
    const file = [...data.files].find((each) => each.type.startsWith("image/")) || data.files[0];
    const url = file || !library()?.urls ? null : urlIn(data);
    if (file) onFile(file);
    else if (url) onQuery({ url });
    return Boolean(file || url);
  };
  listenToInputs(onFile, onQuery);
  listenToPaste(receive);
  listenToDrops(receive);
}

export function showError(text) {
  byId("upload-error").textContent = text || "";
  byId("upload-error").hidden = !text;
}

function validationError(file, library) {
  if (file.type && !file.type.startsWith("image/"))
    return `“${file.name}” is not a picture. Choose an image file, such as JPEG, PNG or WebP.`;
  if (file.size === 0) return `“${file.name}” is empty. Choose another picture.`;
  if (library && file.size > library.limits.bytes)
    return (
      `“${file.name}” is ${(file.size / MIB).toFixed(1)} MB; the limit is ` +
      `${(library.limits.bytes / MIB).toFixed(0)} MB. Save a smaller copy, then try again.`
    );
  return null;
}

function urlIn(data) {
  const text = data.getData("text/uri-list") || data.getData("text/plain");
  const url = text.trim().split("\n")[0];
  return /^https?:\/\/\S+$/.test(url) ? url : null;
}

function listenToInputs(onFile, onQuery) {
  for (const id of ["choose", "take-photo"])
    byId(id).addEventListener("change", (event) => {
      const [file] = event.target.files;
      event.target.value = ""; // so that the same file can be chosen again
      if (file) onFile(file);
    });
  byId("url-form").addEventListener("submit", (event) => {
    event.preventDefault();
    onQuery({ url: byId("url").value.trim() });
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
