// The ways in for a new image: drop, paste, choose, photograph, or give its address.
// Checks what can be checked before it is sent; asks nothing.

import { byId } from "./dom.js";

const MIB = 2 ** 20;
const DRAWN = "application/x-simsearch"; // marks what is dragged out of this very page

/** Call `take({file})` or `take({url})` for each; `library()` tells the limits. */
export function listen(take, library) {
  const offer = (file) => {
    const fault = faultOf(file, library());
    complain(fault);
    if (!fault) take({ file });
  };
  for (const id of ["choose", "photograph"])
    byId(id).addEventListener("change", (event) => {
      const [file] = event.target.files;
      event.target.value = ""; // so that the same file can be chosen again
      if (file) offer(file);
    });
  byId("address").addEventListener("submit", (event) => {
    event.preventDefault();
    take({ url: byId("url").value.trim() });
  });
  listenToDrops(offer, take, library);
  listenToPaste(offer, take, library);
}

export function complain(words) {
  byId("fault").textContent = words || "";
  byId("fault").hidden = !words;
}

function faultOf(file, library) {
  if (file.type && !file.type.startsWith("image/"))
    return `“${file.name}” is not a picture. Choose a JPEG, PNG, WebP or the like.`;
  if (file.size === 0) return `“${file.name}” is empty. Choose another picture.`;
  if (library && file.size > library.limits.bytes)
    return (
      `“${file.name}” has ${(file.size / MIB).toFixed(1)} MB, and at most ` +
      `${(library.limits.bytes / MIB).toFixed(0)} MB are taken. Save it smaller, then try again.`
    );
  return null;
}

function addressIn(data, library) {
  const text = data.getData("text/uri-list") || data.getData("text/plain");
  const address = text.trim().split("\n")[0];
  return library?.urls && /^https?:\/\/\S+$/.test(address) ? address : null;
}

function receive(data, offer, take, library) {
  const file = [...data.files].find((one) => one.type.startsWith("image/")) || data.files[0];
  const url = file ? null : addressIn(data, library());
  if (file) offer(file);
  else if (url) take({ url });
  return Boolean(file || url);
}

function listenToPaste(offer, take, library) {
  addEventListener("paste", (event) => {
    if (event.target.closest?.("input:not([type=file]), textarea")) return; // it is typed there
    if (receive(event.clipboardData, offer, take, library)) event.preventDefault();
    else complain("There is no picture in the clipboard. Copy one, then paste again.");
  });
}

function listenToDrops(offer, take, library) {
  const veil = byId("drop");
  const foreign = (event) => !event.dataTransfer.types.includes(DRAWN);
  addEventListener("dragstart", (event) => event.dataTransfer.setData(DRAWN, "1"));
  addEventListener("dragover", (event) => {
    if (!foreign(event)) return;
    event.preventDefault();
    veil.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) veil.hidden = true;
  });
  addEventListener("drop", (event) => {
    veil.hidden = true;
    if (!foreign(event)) return;
    event.preventDefault();
    if (!receive(event.dataTransfer, offer, take, library))
      complain("That is no picture. Drop an image file.");
  });
}
