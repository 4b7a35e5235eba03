// DOM helpers. Names and captions become text nodes, never HTML.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** Make an element: `on…` properties are listeners, null ones are left out, strings become text. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "for") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** A button with text, and an icon before it where `iconName` is given. */
export const button = (text, properties, iconName = null) =>
  el(
    "button",
    { type: "button", className: "button", ...properties },
    iconName && icon(iconName),
    iconName ? el("span", {}, text) : text,
  );

/** A link that opens the original image in a new tab. */
export const originalLink = (className, href, label) =>
  el(
    "a",
    {
      className,
      href,
      target: "_blank",
      rel: "noopener",
      title: "Open the original",
      "aria-label": label,
    },
    icon("open"),
  );

/** An icon of the sheet at the top of the page: a copy, which costs the browser less than `<use>`. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("viewBox", "0 0 24 24");
  for (const shape of byId(name).children) svg.append(shape.cloneNode());
  return svg;
}

/** A caption: a name on one line, a second line below it, and the whole of `text` on hover. */
export const caption = (name, detail, text = name) =>
  el(
    "p",
    { className: "caption", title: text },
    el("bdi", { className: "caption-name" }, name),
    detail ? el("bdi", { className: "caption-detail" }, detail) : null,
  );

/** [name, detail] of an image: its first metadata, or its file, then the rest or its folder. */
export function captionOf({ caption: text, path }) {
  const [name, ...rest] = text ? text.split(" · ") : [path.split("/").pop()];
  const folder = path.split("/").slice(0, -1).join("/");
  return [name, rest.join(" · ") || folder];
}

/** A score in words: "Similarity 0.812: closer than 98% of random pairs in this library". */
export function scoreText({ score, percentile }) {
  const closer = percentile === null ? "" : `: closer than ${floor(percentile)}% of random pairs in this library`;
  return `Similarity ${score.toFixed(3)}${closer}`;
}

const floor = (percentile) =>
  percentile > 99 ? Math.floor(100 * percentile) / 100 : Math.floor(percentile);

/** "price_eur" becomes "Price eur". */
export function readable(column) {
  const words = column.replaceAll(/[_\s]+/g, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** The caption of an image, or else its path. */
export const titleOf = (image) => image.caption || image.path;

export const plural = (count, one, many = `${one}s`) =>
  `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** Delay `callback` until no call has come for a while; `cancel()` drops the pending call. */
export function debounce(callback, milliseconds) {
  let timer;
  const delayed = (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => callback(...values), milliseconds);
  };
  delayed.cancel = () => clearTimeout(timer);
  return delayed;
}

/** Announce text to a screen reader; a repeated text is changed, so that it is read again. */
export function announce(text) {
  const region = byId("status");
  region.textContent = region.textContent === text ? `${text}\u00a0` : text;
}
