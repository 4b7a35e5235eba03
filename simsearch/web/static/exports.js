// Files of selected pictures, made in the browser: a table, a list of paths, or the originals.

import { el } from "./dom.js";
import { zip } from "./zip.js";

export const MAX_FILES = 200; // of a ZIP
export const MAX_BYTES = 300e6;
const FORMULA = /^[=+\-@\t\r\n']/; // a spreadsheet would run such a cell
const BROWSER_FORMATS = /\.(jpe?g|jpe|jfif|mpo|png|webp|gif|avif)$/i; // others are sent as JPEG

/** Save data as a file. */
export function save(data, name, type) {
  const address = URL.createObjectURL(data instanceof Blob ? data : new Blob([data], { type }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** A cell of a CSV file, as `simsearch.csv_file` writes it: no spreadsheet runs it. */
function cell(value) {
  const text = typeof value === "string" && FORMULA.test(value) ? `'${value}` : String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** A table of images: path, score where there is one, and metadata. */
export function csv(images) {
  const names = [...new Set(images.flatMap(({ metadata }) => Object.keys(metadata)))];
  const scored = images.some(({ score }) => score !== undefined);
  const header = ["path", ...(scored ? ["score"] : []), ...names.filter((name) => name !== "path")];
  const line = (image) =>
    header.map((name) => cell(name === "path" || name === "score" ? image[name] : image.metadata[name]));
  return [header.map(cell), ...images.map(line)].map((cells) => cells.join(",")).join("\r\n") + "\r\n";
}

export const paths = (images) => images.map(({ path }) => `${path}\n`).join("");

/** The originals of images in one ZIP; `onProgress(done)` is called after each. */
export async function originals(images, signal, onProgress) {
  const files = [];
  let bytes = 0;
  for (const { path, image } of images) {
    const response = await fetch(image, { signal });
    if (!response.ok) throw new Error(`${path} could not be loaded (status ${response.status}).`);
    const data = new Uint8Array(await response.arrayBuffer());
    bytes += data.length;
    if (bytes > MAX_BYTES)
      throw new Error(`These pictures have more than ${MAX_BYTES / 1e6} MB together. Select fewer.`);
    files.push({ name: BROWSER_FORMATS.test(path) ? path : `${path}.jpg`, data });
    onProgress(files.length);
  }
  return zip(files);
}
