// DOM helpers. Names and captions become text nodes, never HTML.

const SVG = "http://www.w3.org/2000/svg";
const TAIL_LETTERS = 12; // at the end of a long name, always visible

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

/** An icon of the sprite sheet at the top of index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#${name}`);
  svg.append(use);
  return svg;
}

/** Text on one line that is shortened in its middle, not at its end. */
export function shortened(text) {
  const letters = [...text];
  const head = letters.slice(0, -TAIL_LETTERS).join("");
  const tail = letters.slice(-TAIL_LETTERS).join("");
  return el(
    "span",
    { className: "shortened", title: text },
    el("span", {}, head),
    el("span", {}, tail),
  );
}

/** A caption: a name on one line, a second line below it, and the whole of `text` on hover. */
export const caption = (name, detail, text = name) =>
  el(
    "p",
    { className: "caption", title: text },
    el("bdi", { className: "caption-name" }, name),
    detail ? el("bdi", { className: "caption-detail" }, detail) : null,
  );

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
