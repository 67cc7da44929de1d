// Where galaxies lie: on the sky, and among each other as the vectors have it. Hits stand out; a click opens the nearest.
import type { Atlas } from "../atlas.ts";
import type { Numbers } from "../files.ts";
import type { Mask } from "../search.ts";
import { color, h, short, surface, ticks } from "./dom.ts";

const MOST_POINTS = 60_000; // more of the others are not seen
const REACH = 14; // CSS pixels around a click

interface Points {
  x: ArrayLike<number>;
  y: ArrayLike<number>;
}

interface Shown {
  hits: number[];
  mask: Mask;
  selected: number | null;
}

/** Draw the maps that a site has. */
export function maps(atlas: Atlas, shown: Shown, pick: (row: number) => void): HTMLElement {
  const box = h("div", { class: "maps" });
  const name = atlas.main && atlas.site.maps[atlas.main.name] ? atlas.main.name : Object.keys(atlas.site.maps)[0];
  const vectors = name ? atlas.map(name) : null;
  if (vectors) box.append(map("Map of likeness", "Galaxies that are alike lie close together.", vectors.then(pairs), shown, pick, false));
  if (atlas.columns.has("ra") && atlas.columns.has("dec")) {
    const sky = Promise.all([atlas.columns.values("ra"), atlas.columns.values("dec")]).then(([ra, dec]) => onSky(ra, dec));
    box.append(map("Sky", "Right ascension grows to the left, degrees ICRS.", sky, shown, pick, true));
  }
  if (!box.children.length) box.append(h("p", { class: "hint" }, "This site has no map of its vectors, and its galaxies have no positions."));
  return box;
}

function pairs(values: Numbers): Points {
  const count = values.length / 2;
  return { x: Float32Array.from({ length: count }, (_, n) => values[2 * n]!), y: Float32Array.from({ length: count }, (_, n) => values[2 * n + 1]!) };
}

/** Return positions for drawing: a field that lies across 0h is kept together. */
function onSky(ra: Numbers, dec: Numbers): Points {
  const sorted = Float64Array.from(ra).filter((one) => Number.isFinite(one)).sort();
  let [gap, cut] = [sorted.length ? sorted[0]! + 360 - sorted.at(-1)! : 0, 0];
  for (let n = 1; n < sorted.length; n++) if (sorted[n]! - sorted[n - 1]! > gap) [gap, cut] = [sorted[n]! - sorted[n - 1]!, sorted[n]!];
  return { x: Float64Array.from(ra, (one) => (one < cut ? one + 360 : one)), y: dec };
}

function map(title: string, about: string, wait: Promise<Points | null>, shown: Shown, pick: (row: number) => void, isSky: boolean): HTMLElement {
  const canvas = h("canvas", { role: "img", tabIndex: 0, "aria-label": `${title}: ${shown.hits.length} hits among all galaxies. The table lists the same.` });
  const note = h("figcaption", {}, h("strong", {}, title), " ", about);
  const figure = h("figure", { class: "map" }, canvas, note);
  wait.then(
    (points) => {
      if (!points || !Array.from({ length: Math.min(points.x.length, 5000) }).some((_, n) => Number.isFinite(points.x[n]!))) return figure.replaceChildren(h("p", { class: "hint" }, isSky ? "The galaxies of this site have no positions on the sky." : "There is no map."));
      const frame = new Frame(canvas, points, shown, isSky);
      frame.draw();
      new ResizeObserver(() => frame.draw()).observe(canvas);
      document.addEventListener("themechange", () => canvas.isConnected && frame.draw());
      canvas.addEventListener("click", (event) => {
        const row = frame.nearest(event.offsetX, event.offsetY);
        if (row !== null) pick(row);
      });
      canvas.addEventListener("pointermove", (event) => (canvas.style.cursor = frame.nearest(event.offsetX, event.offsetY) === null ? "default" : "pointer"));
      canvas.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && shown.hits[0] !== undefined) pick(shown.hits[0]);
      });
    },
    (error: Error) => figure.replaceChildren(h("p", { class: "error" }, error.message)),
  );
  return figure;
}

class Frame {
  #canvas: HTMLCanvasElement;
  #points: Points;
  #shown: Shown;
  #isSky: boolean;
  #others: number[];
  #place: { x: (value: number) => number; y: (value: number) => number } | null = null;

  constructor(canvas: HTMLCanvasElement, points: Points, shown: Shown, isSky: boolean) {
    this.#canvas = canvas;
    this.#points = points;
    this.#shown = shown;
    this.#isSky = isSky;
    const step = Math.max(1, Math.ceil(points.x.length / MOST_POINTS));
    this.#others = Array.from({ length: Math.ceil(points.x.length / step) }, (_, n) => n * step).filter((n) => Number.isFinite(points.x[n]!) && Number.isFinite(points.y[n]!));
  }

  draw(): void {
    const { context, width, height } = surface(this.#canvas);
    if (width < 40) return;
    const { x, y } = this.#places(width, height);
    this.#place = { x, y };
    if (this.#isSky) this.#axes(context, width, height);
    const { mask, hits, selected } = this.#shown;
    for (const passes of [false, true]) {
      context.fillStyle = color("text");
      context.globalAlpha = passes ? Math.max(0.12, Math.min(0.42, 900 / this.#others.length)) : 0.07;
      for (const n of this.#others) if ((!mask || mask[n] === 1) === passes) context.fillRect(x(this.#points.x[n]!) - 0.9, y(this.#points.y[n]!) - 0.9, 1.8, 1.8);
    }
    context.globalAlpha = 1;
    for (const row of [...hits].reverse()) this.#dot(context, row, 3.4, color("hit"));
    if (selected !== null) {
      context.lineWidth = 2;
      context.strokeStyle = color("text");
      context.beginPath();
      context.arc(x(this.#points.x[selected]!), y(this.#points.y[selected]!), 8, 0, 7);
      context.stroke();
    }
  }

  #dot(context: CanvasRenderingContext2D, row: number, radius: number, fill: string): void {
    if (!Number.isFinite(this.#points.x[row]!)) return;
    context.beginPath();
    context.arc(this.#place!.x(this.#points.x[row]!), this.#place!.y(this.#points.y[row]!), radius, 0, 7);
    context.fillStyle = fill;
    context.fill();
    context.lineWidth = 1;
    context.strokeStyle = color("ground");
    context.stroke();
  }

  #places(width: number, height: number): { x: (value: number) => number; y: (value: number) => number } {
    const [left, bottom, edge] = this.#isSky ? [46, 26, 10] : [10, 10, 10];
    const [x0, x1] = extent(this.#others, this.#points.x);
    const [y0, y1] = extent(this.#others, this.#points.y);
    const squeeze = this.#isSky ? Math.cos(((y0 + y1) / 2) * (Math.PI / 180)) : 1;
    const scale = Math.min((width - left - edge) / ((x1 - x0) * squeeze || 1), (height - bottom - edge) / (y1 - y0 || 1));
    const [cx, cy] = [(left + width - edge) / 2, (edge + height - bottom) / 2];
    const sign = this.#isSky ? -1 : 1;
    const free = !this.#isSky; // a map of vectors has no scale, so that it may fill its frame
    const [sx, sy] = free ? [(width - 2 * edge) / (x1 - x0 || 1), (height - 2 * edge) / (y1 - y0 || 1)] : [scale * squeeze, scale];
    return { x: (value) => cx + sign * (value - (x0 + x1) / 2) * sx, y: (value) => cy - (value - (y0 + y1) / 2) * sy };
  }

  #axes(context: CanvasRenderingContext2D, width: number, height: number): void {
    const { x, y } = this.#place!;
    context.font = "11px system-ui, sans-serif";
    context.strokeStyle = color("rule");
    context.fillStyle = color("soft");
    const [x0, x1] = extent(this.#others, this.#points.x);
    const [y0, y1] = extent(this.#others, this.#points.y);
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const tick of ticks(x0, x1, Math.max(2, Math.abs(x(x1) - x(x0)) / 80))) {
      line(context, x(tick), 8, x(tick), height - 24);
      context.fillText(short(((tick % 360) + 360) % 360), x(tick), height - 20);
    }
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const tick of ticks(y0, y1, Math.max(2, Math.abs(y(y1) - y(y0)) / 60))) {
      line(context, 46, y(tick), width - 10, y(tick));
      context.fillText(short(tick), 42, y(tick));
    }
  }

  /** Return the galaxy under a place, hits before others; null where none is near. */
  nearest(px: number, py: number): number | null {
    if (!this.#place) return null;
    let [best, at]: [number, number | null] = [REACH ** 2, null];
    for (const rows of [this.#shown.hits, this.#others]) {
      for (const row of rows) {
        const far = (this.#place.x(this.#points.x[row]!) - px) ** 2 + (this.#place.y(this.#points.y[row]!) - py) ** 2;
        if (far < best) [best, at] = [far, row];
      }
      if (at !== null) return at;
    }
    return at;
  }
}

function extent(rows: number[], values: ArrayLike<number>): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const row of rows) {
    low = Math.min(low, values[row]!);
    high = Math.max(high, values[row]!);
  }
  return low === high ? [low - 0.01, high + 0.01] : [low, high];
}

function line(context: CanvasRenderingContext2D, x0: number, y0: number, x1: number, y1: number): void {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}
