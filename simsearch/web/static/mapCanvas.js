// A canvas of points that can be moved, zoomed, and drawn around. Shows thumbnails where there is
// room. Knows nothing of the server but the addresses that it is given, at once or as promises.

export const COLORS = [
  "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f",
  "#b6992d", "#b07aa1", "#d37295", "#9c755f", "#499894",
];
const OTHER = "#9a9a96";
const MARGIN = 28; // pixels around the whole map
const MAX_SCALE = 60;
const THUMBNAIL = 64; // pixels
const MAX_THUMBNAILS = 70; // at once
const PICK_PIXELS = 24; // from a point, within which a click means it
const CLICK_PIXELS = 5; // that the pointer may move in a click
const KEY_PIXELS = 60;
const NAME_FONT = "600 13px system-ui, sans-serif";
const NAME_HEIGHT = 18; // pixels, with room around it

export class MapCanvas {
  drawing = false; // whether the pointer draws a line around pictures
  #canvas; #context; #options;
  #points = []; // {x, y, group, row} in the unit square
  #names = []; // {name, x, y}: of groups, each at the median of its points; the largest first
  #chosen = new Set();
  #scale = 1; #left = 0; #top = 0; // zoom, and the place in the unit square of the upper left corner
  #line = []; // being drawn, in pixels
  #pictures = new Map(); // row: image
  #pointers = new Map();
  #moved = 0;
  #frame = 0;

  constructor(canvas, options) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    this.#options = options;
    new ResizeObserver(() => this.#resize()).observe(canvas);
    canvas.addEventListener("wheel", (event) => this.#onWheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#onDown(event));
    canvas.addEventListener("pointermove", (event) => this.#onMove(event));
    canvas.addEventListener("pointerup", (event) => this.#onUp(event));
    canvas.addEventListener("pointercancel", (event) => this.#onUp(event));
    canvas.addEventListener("pointerleave", () => this.#options.onHover?.(-1));
    canvas.addEventListener("keydown", (event) => this.#onKey(event));
    new MutationObserver(() => this.#draw()).observe(document.documentElement, {
      attributeFilter: ["data-theme"],
    });
  }

  /** Show points: {rows, x, y, group, size}; with `names`, the groups are named where they lie. */
  load({ rows, x, y, group, size }, names = []) {
    this.#points = rows.map((row, i) => ({ row, x: x[i] / size, y: y[i] / size, group: group[i] }));
    this.#names = named(this.#points, names);
    this.#pictures.clear();
    this.#chosen.clear();
    this.showAll();
  }

  /** Mark points as chosen. */
  choose(indices) {
    this.#chosen = new Set(indices);
    this.#draw();
  }

  showAll() {
    [this.#scale, this.#left, this.#top] = [1, 0, 0];
    this.#changed();
  }

  /** Zoom by a factor, around a place in pixels: by default, the middle. */
  zoom(factor, at = this.#middle()) {
    const before = this.#place(at);
    this.#scale = Math.min(MAX_SCALE, Math.max(1, this.#scale * factor));
    const after = this.#place(at);
    this.#left += before[0] - after[0];
    this.#top += before[1] - after[1];
    this.#changed();
  }

  /** The indices of the points nearest to the middle, the nearest first. */
  nearest(count) {
    const [x, y] = this.#middle();
    const away = this.#points.map((point, i) => {
      const [u, v] = this.#pixel(point);
      return [(u - x) ** 2 + (v - y) ** 2, i];
    });
    return away.sort((a, b) => a[0] - b[0]).slice(0, count).map(([, i]) => i);
  }

  get #size() {
    return [this.#canvas.clientWidth, this.#canvas.clientHeight];
  }

  #middle() {
    return this.#size.map((side) => side / 2);
  }

  /** Pixels of the unit square's side, across and down. */
  #sides() {
    return this.#size.map((side) => Math.max(1, side - 2 * MARGIN) * this.#scale);
  }

  #pixel({ x, y }) {
    const [across, down] = this.#sides();
    return [MARGIN + (x - this.#left) * across, MARGIN + (y - this.#top) * down];
  }

  #place([u, v]) {
    const [across, down] = this.#sides();
    return [(u - MARGIN) / across + this.#left, (v - MARGIN) / down + this.#top];
  }

  #move(across, down) {
    const sides = this.#sides();
    this.#left -= across / sides[0];
    this.#top -= down / sides[1];
    this.#changed();
  }

  #changed() {
    const most = 1 - 1 / this.#scale; // no farther than the edge of the map
    this.#left = Math.min(most, Math.max(0, this.#left));
    this.#top = Math.min(most, Math.max(0, this.#top));
    this.#draw();
    this.#options.onMove();
  }

  #resize() {
    const [width, height] = this.#size;
    this.#canvas.width = width * devicePixelRatio;
    this.#canvas.height = height * devicePixelRatio;
    this.#changed(); // another picture may be in the middle
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    const context = this.#context;
    const [width, height] = this.#size;
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, width, height);
    const radius = Math.min(5, 2.5 + this.#scale / 4);
    const seen = [];
    this.#points.forEach((point, i) => {
      const [u, v] = this.#pixel(point);
      if (u < -40 || v < -40 || u > width + 40 || v > height + 40) return;
      seen.push([i, u, v]);
      context.globalAlpha = this.#chosen.size && !this.#chosen.has(i) ? 0.25 : 0.85;
      context.fillStyle = COLORS[point.group] ?? OTHER;
      context.beginPath();
      context.arc(u, v, radius, 0, 7);
      context.fill();
    });
    context.globalAlpha = 1;
    this.#paintThumbnails(seen);
    this.#paintNames();
    this.#paintLine();
  }

  /** Draw thumbnails over points that are far enough from each other. */
  #paintThumbnails(seen) {
    const taken = new Set();
    const cell = THUMBNAIL + 6;
    let count = 0;
    for (const [i, u, v] of seen) {
      const [a, b] = [Math.floor(u / cell), Math.floor(v / cell)];
      const key = `${a},${b}`;
      if (taken.has(key) || count === MAX_THUMBNAILS) continue;
      const image = this.#picture(this.#points[i].row);
      taken.add(key);
      count += 1;
      if (image.complete && image.naturalWidth) this.#paintThumbnail(image, i, a * cell + cell / 2, b * cell + cell / 2);
    }
  }

  #paintThumbnail(image, i, u, v) {
    const context = this.#context;
    const part = THUMBNAIL / Math.max(image.naturalWidth, image.naturalHeight);
    const [width, height] = [image.naturalWidth * part, image.naturalHeight * part];
    context.globalAlpha = this.#chosen.size && !this.#chosen.has(i) ? 0.35 : 1;
    context.fillStyle = COLORS[this.#points[i].group] ?? OTHER;
    context.fillRect(u - width / 2 - 2, v - height / 2 - 2, width + 4, height + 4);
    context.drawImage(image, u - width / 2, v - height / 2, width, height);
    context.globalAlpha = 1;
  }

  /** Write the names of groups, except where one would cover another. */
  #paintNames() {
    const context = this.#context;
    const style = getComputedStyle(this.#canvas);
    const taken = [];
    Object.assign(context, { font: NAME_FONT, textAlign: "center", textBaseline: "middle", lineWidth: 4 });
    Object.assign(context, { strokeStyle: style.backgroundColor, fillStyle: style.color, lineJoin: "round" });
    for (const { name, x, y } of this.#names) {
      const [u, v] = this.#pixel({ x, y });
      const half = context.measureText(name).width / 2 + 4;
      if (taken.some(([p, q, side]) => Math.abs(p - u) < side + half && Math.abs(q - v) < NAME_HEIGHT)) continue;
      taken.push([u, v, half]);
      context.strokeText(name, u, v);
      context.fillText(name, u, v);
    }
  }

  #picture(row) {
    if (!this.#pictures.has(row)) {
      const image = new Image();
      image.addEventListener("load", () => this.#draw());
      this.#pictures.set(row, image);
      Promise.resolve(this.#options.pictureOf(row)).then((address) => (image.src = address));
    }
    return this.#pictures.get(row);
  }

  #paintLine() {
    if (this.#line.length < 2) return;
    const context = this.#context;
    context.strokeStyle = getComputedStyle(this.#canvas).color;
    context.lineWidth = 2;
    context.setLineDash([6, 4]);
    context.beginPath();
    for (const [u, v] of this.#line) context.lineTo(u, v);
    context.closePath();
    context.stroke();
    context.setLineDash([]);
  }

  #at({ clientX, clientY }) {
    const { left, top } = this.#canvas.getBoundingClientRect();
    return [clientX - left, clientY - top];
  }

  #onWheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY / 400), this.#at(event));
  }

  #onDown(event) {
    if (event.button !== 0) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, this.#at(event));
    this.#moved = 0;
    this.#line = this.drawing ? [this.#at(event)] : [];
  }

  #onMove(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return this.#hover(this.#at(event));
    const at = this.#at(event);
    const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
    const away = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
    this.#pointers.set(event.pointerId, at);
    this.#moved += away(at, before);
    if (other) {
      const middle = [(at[0] + other[0]) / 2, (at[1] + other[1]) / 2];
      this.zoom(away(at, other) / Math.max(1, away(before, other)), middle);
    } else if (this.drawing) {
      this.#line.push(at);
      this.#draw();
    } else this.#move(at[0] - before[0], at[1] - before[1]);
  }

  #onUp(event) {
    if (!this.#pointers.delete(event.pointerId)) return;
    const line = this.#line;
    this.#line = [];
    if (this.drawing && line.length > 2) this.#options.onDrawn(this.#inside(line));
    else if (event.type === "pointerup" && this.#moved < CLICK_PIXELS) this.#pick(this.#at(event));
    this.#draw();
  }

  #pick(at) {
    const index = this.#near(at);
    if (index >= 0) this.#options.onPick(index);
  }

  #hover(at) {
    if (this.#options.onHover) this.#options.onHover(this.#near(at), at);
  }

  /** The index of the point that a place in pixels means; -1 for none. */
  #near([u, v]) {
    let [best, nearest] = [-1, PICK_PIXELS];
    this.#points.forEach((point, i) => {
      const [p, q] = this.#pixel(point);
      const away = Math.hypot(p - u, q - v);
      if (away < nearest) [best, nearest] = [i, away];
    });
    return best;
  }

  /** The indices of the points within a closed line: those that it goes around an odd number of times. */
  #inside(line) {
    const within = ([u, v]) =>
      line.reduce((inside, [x, y], i) => {
        const [p, q] = line[(i + line.length - 1) % line.length];
        const crosses = y > v !== q > v && u < ((p - x) * (v - y)) / (q - y) + x;
        return crosses ? !inside : inside;
      }, false);
    return this.#points.flatMap((point, i) => (within(this.#pixel(point)) ? [i] : []));
  }

  #onKey(event) {
    const steps = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const step = steps[event.key];
    if (step) this.#move(step[0] * KEY_PIXELS, step[1] * KEY_PIXELS);
    else if (event.key === "+" || event.key === "=") this.zoom(1.6);
    else if (event.key === "-") this.zoom(1 / 1.6);
    else if (event.key === "0") this.showAll();
    else if (event.key === "Enter" && this.#points.length) this.#options.onPick(this.nearest(1)[0]);
    else return;
    event.preventDefault();
  }
}

/** The names of groups with the median of their points, the largest group first. */
function named(points, names) {
  const middle = (values) => values.sort((a, b) => a - b)[values.length >> 1];
  return names
    .map((name, i) => [name, points.filter(({ group }) => group === i)])
    .filter(([, own]) => own.length)
    .sort(([, a], [, b]) => b.length - a.length)
    .map(([name, own]) => ({ name, x: middle(own.map(({ x }) => x)), y: middle(own.map(({ y }) => y)) }));
}
