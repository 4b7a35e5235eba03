// Frames around the parts of pictures that matched, over thumbnails and large pictures.

import { clamp } from "./box.js";
import { el } from "./dom.js";

/** Whether a match was found by a part of its picture, and not as a whole. */
export function isPart({ box, size }) {
  if (!box || !size) return false;
  const [left, top, right, bottom] = box;
  return left > 0 || top > 0 || right < size[0] || bottom < size[1];
}

/** Put a frame over the thumbnail of a match, whose element has this `ratio` of width to height. It
    shows as much of the picture as usual, moved so that it holds the part; all of it where the part
    is longer. */
export function frameThumbnail(picture, match, ratio) {
  if (!isPart(match)) return;
  const { box, size } = match;
  const covered = [Math.min(size[0], size[1] * ratio), Math.min(size[1], size[0] / ratio)];
  const whole = [Math.max(size[0], size[1] * ratio), Math.max(size[1], size[0] / ratio)];
  const fits = box[2] - box[0] <= covered[0] && box[3] - box[1] <= covered[1];
  const area = fits ? covered : whole;
  const spare = size.map((side, axis) => side - area[axis]);
  const [x, y] = spare.map((each, axis) =>
    fits ? clamp((box[axis] + box[axis + 2] - area[axis]) / 2, 0, each) : each / 2,
  );
  const at = [x, y].map((start, axis) =>
    fits && spare[axis] ? `${(100 * start) / spare[axis]}%` : "50%",
  );
  picture.style.setProperty("--fit", fits ? "cover" : "contain");
  picture.style.setProperty("--at", at.join(" "));
  const shown = { x, y, width: area[0], height: area[1] };
  picture.append(el("span", { className: "part-layer" }, frame(match, shown)));
}

/** Put a frame over a large picture that is shown whole, whatever the shape of its element. */
export function frameLarge(image, match) {
  if (!isPart(match)) return image;
  const layer = el("span", { className: "part-layer" });
  const [width, height] = match.size;
  const draw = () => {
    const { clientWidth, clientHeight } = image;
    if (!clientWidth || !clientHeight) return;
    const scale = Math.min(clientWidth / width, clientHeight / height);
    const shown = { width: clientWidth / scale, height: clientHeight / scale };
    const corner = { x: (width - shown.width) / 2, y: (height - shown.height) / 2 };
    layer.replaceChildren(frame(match, { ...corner, ...shown }));
  };
  image.addEventListener("load", draw);
  new ResizeObserver(draw).observe(image);
  return el("span", { className: "framed" }, image, layer);
}

/** A frame around the box of a match, in an area of the picture that is given in its pixels. */
function frame({ box, label }, { x, y, width, height }) {
  const [left, top, right, bottom] = box;
  const node = el("span", { className: "part-frame", "aria-hidden": "true" });
  Object.assign(node.style, {
    left: `${(100 * (left - x)) / width}%`,
    top: `${(100 * (top - y)) / height}%`,
    width: `${(100 * (right - left)) / width}%`,
    height: `${(100 * (bottom - top)) / height}%`,
  });
  if (label) node.append(el("span", { className: "part-label" }, label));
  return node;
}

/** The part in words: "shoe: 40, 40 to 100, 100 of 100 × 100 pixels". */
export function partText({ box, size, label }) {
  const edges = `${box[0]}, ${box[1]} to ${box[2]}, ${box[3]} of ${size[0]} × ${size[1]} pixels`;
  return label ? `${label}: ${edges}` : edges;
}
