// Lays the cards of a long list out in lines, each an element of its own: the browser then styles,
// lays out and paints the few lines near the window, however many there are. A line holds the cards
// with which its height comes nearest to the wanted one.

import { el } from "./dom.js";

const fits = new WeakMap(); // list: {width, row, gap} of its lines, in CSS pixels

/** Lay a list out again whenever its width changes. */
export function watch(list) {
  new ResizeObserver(() => {
    if (!list.clientWidth || list.matches(".away")) return;
    const fit = measured(list);
    const same = Object.entries(fit).every(([name, value]) => fits.get(list)?.[name] === value);
    fits.set(list, fit);
    if (!same) layOutAgain(list);
  }).observe(list);
}

/** Replace all cards of a list. */
export function replace(list, cards) {
  list.replaceChildren();
  append(list, cards);
}

/** Add cards, to the last line while they fit. */
export function append(list, cards) {
  if (!fits.has(list)) fits.set(list, measured(list));
  const { width, row, gap } = fits.get(list);
  const length = (card) => Number(card.style.getPropertyValue("--ratio")) * row;
  let line = list.lastElementChild;
  let used = [...(line?.children ?? [])].reduce((sum, card) => sum + length(card) + gap, 0);
  for (const card of cards) {
    if (!line || (used && !fitsBetter(used - gap, used + length(card), width))) {
      line = el("div", { className: "line" });
      list.append(line);
      used = 0;
    }
    line.append(card);
    used += length(card) + gap;
  }
}

/** Whether a line is better off with one more card: shrunk to the width, rather than stretched. */
const fitsBetter = (without, together, width) =>
  together <= width || together / width < width / without;

function measured(list) {
  const style = getComputedStyle(list);
  return {
    width: list.getBoundingClientRect().width,
    row: parseFloat(style.getPropertyValue("--row")),
    gap: parseFloat(style.columnGap),
  };
}

/** Fill the lines anew; what is at the top of the window stays there, and the focus where it is. */
function layOutAgain(list) {
  const inView = [...list.children].find((line) => line.getBoundingClientRect().bottom > 0);
  const first = inView?.firstElementChild;
  const top = inView?.getBoundingClientRect().top;
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  replace(list, [...list.querySelectorAll(".card")]);
  focused?.focus({ preventScroll: true });
  if (first && top < 0) scrollBy(0, first.getBoundingClientRect().top - top);
}
