// Geometry of a selected part: [left, top, right, bottom] in fractions of an image.
// Knows no elements: the page and the notebook's widget draw it.

export const MIN_SIDE = 0.04; // of the image; a smaller drag is a click
export const CORNERS = { nw: [0, 1], ne: [2, 1], sw: [0, 3], se: [2, 3] }; // edges that each one moves

export const clamp = (value, low = 0, high = 1) => Math.min(high, Math.max(low, value));
const rounded = (edges) => edges.map((edge) => Number(edge.toFixed(4)));

export function moved([left, top, right, bottom], [x, y]) {
  const across = clamp(x, -left, 1 - right);
  const down = clamp(y, -top, 1 - bottom);
  return rounded([left + across, top + down, right + across, bottom + down]);
}

export const resized = ([left, top, right, bottom], [x, y]) =>
  rounded([left, top, clamp(right + x, left + MIN_SIDE), clamp(bottom + y, top + MIN_SIDE)]);

export const spanned = ([x, y], [u, v]) =>
  rounded([Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)]);

export const isSmall = ([left, top, right, bottom]) =>
  right - left < MIN_SIDE || bottom - top < MIN_SIDE;

/** Where a pointer is over an element, in fractions of it. */
export function pointOver(area, { clientX, clientY }) {
  const { left, top, width, height } = area.getBoundingClientRect();
  return [clamp((clientX - left) / width), clamp((clientY - top) / height)];
}
