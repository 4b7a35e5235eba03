// Small helpers to build the page. Names and captions become text nodes, never HTML.

const SVG = "http://www.w3.org/2000/svg";
const TAIL = 12; // letters at the end of a long name that always show

export const byId = (id) => document.getElementById(id);

/** Make an element: `on…` properties listen, null ones are left out, strings become text. */
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

/** A symbol of the sheet at the top of index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#${name}`);
  svg.append(use);
  return svg;
}

/** Text on one line that loses its middle, not its end, where room is short. */
export function elided(text) {
  const letters = [...text];
  const head = letters.slice(0, -TAIL).join("");
  const tail = letters.slice(-TAIL).join("");
  return el(
    "span",
    { className: "elided", title: text },
    el("span", {}, head),
    el("span", {}, tail),
  );
}

/** Title of an image for people: its caption, or else its path. */
export const title = (image) => image.caption || image.path;

export const plural = (count, one, many = `${one}s`) =>
  `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** Call once it has been quiet for a while. */
export function later(call, milliseconds) {
  let timer;
  const wait = (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...values), milliseconds);
  };
  wait.cancel = () => clearTimeout(timer);
  return wait;
}

/** Tell a screen reader. */
export function say(words) {
  const region = byId("said");
  region.textContent = region.textContent === words ? `${words}\u00a0` : words; // said again
}
