// Selected pictures of the library or of the matches, by row. Kept until the page is left.

import { cached } from "./imageCache.js";

const selected = new Set();
let last = null; // the card that was selected last: Shift selects from there
let notify = () => {};

export const rows = () => [...selected];
export const images = () => rows().map(cached).filter(Boolean);
export const has = (row) => selected.has(row);

/** Call `listener()` on each change. */
export const onChange = (listener) => (notify = listener);

/** Select or release the pictures of rows. */
export function set(changed, on) {
  for (const row of changed) {
    if (on) selected.add(row);
    else selected.delete(row);
  }
  const rows = new Set(changed.map(String));
  const cards = document.querySelectorAll(".grid .card[data-row]");
  showMarks([...cards].filter(({ dataset }) => rows.has(dataset.row)));
  notify();
}

export function clear() {
  last = null;
  set(rows(), false);
}

/** Toggle a card; with `range`, all from the last one to it. */
export function toggle(card, range) {
  const cards = [...card.closest(".grid").querySelectorAll(".card[data-row]")];
  const [from, to] = [cards.indexOf(last), cards.indexOf(card)].sort((a, b) => a - b);
  const row = Number(card.dataset.row);
  const on = !selected.has(row);
  const changed = range && from >= 0 ? cards.slice(from, to + 1) : [card];
  last = card;
  set(changed.map(({ dataset }) => Number(dataset.row)), on);
}

/** Show which of these cards are selected. */
export function showMarks(cards) {
  for (const card of cards) {
    const on = selected.has(Number(card.dataset.row));
    card.classList.toggle("selected", on);
    card.querySelector(".select").setAttribute("aria-pressed", String(on));
  }
}
