// A spectrum, drawn: flux over wavelength with its error, and where lines would be at its redshift.
import type { Site } from "../manifest.ts";
import type { Spectra, Spectrum } from "../spectra.ts";
import { color, h, short, surface, ticks } from "./dom.ts";

const LINES = 14; // labels at most; more overlap
const MARGIN = { left: 44, right: 10, top: 34, bottom: 34 };

/** Return a drawing of a spectrum that follows its size and the page's colors. */
export function spectrumPlot(spectrum: Spectrum, lines: Site["lines"], id: string): HTMLElement {
  const canvas = h("canvas", { class: "spectrum", role: "img", "aria-label": described(spectrum, id) });
  const readout = h("p", { class: "readout", "aria-hidden": "true" }, " ");
  const scale = draw.bind(null, canvas, spectrum, lines);
  let last = scale(null);
  new ResizeObserver(() => (last = scale(null))).observe(canvas);
  document.addEventListener("themechange", () => canvas.isConnected && (last = scale(null)));
  canvas.addEventListener("pointermove", (event) => {
    const at = last?.pixel(event.offsetX);
    if (at === undefined || at < 0) return;
    scale(at);
    const flux = spectrum.flux[at]!;
    readout.textContent = `${spectrum.wavelength[at]!.toFixed(1)} Å · flux ${short(flux)} ± ${short(spectrum.error[at]!)}`;
  });
  canvas.addEventListener("pointerleave", () => {
    scale(null);
    readout.textContent = " ";
  });
  const facts = [spectrum.z === null ? "no redshift" : `z = ${short(spectrum.z)}`, `${spectrum.frame} frame, vacuum`, spectrum.unit ? `flux in ${spectrum.unit}` : ""];
  return h("figure", { class: "plot" }, canvas, readout, h("figcaption", {}, facts.filter(Boolean).join(" · ")));
}

function described(spectrum: Spectrum, id: string): string {
  const { wavelength } = spectrum;
  return `Spectrum of ${id} from ${Math.round(wavelength[0]!)} to ${Math.round(wavelength.at(-1)!)} Ångström${spectrum.z === null ? "" : `, redshift ${short(spectrum.z)}`}`;
}

function draw(canvas: HTMLCanvasElement, spectrum: Spectrum, lines: Site["lines"], cursor: number | null): { pixel: (x: number) => number } | null {
  if (!canvas.isConnected) return null;
  const { context, width, height } = surface(canvas);
  const there = Array.from(spectrum.flux.keys()).filter((n) => Number.isFinite(spectrum.flux[n]!) && !Number.isNaN(spectrum.error[n]!));
  if (!there.length || width < 120) return null;
  const [first, last] = [spectrum.wavelength[there[0]!]!, spectrum.wavelength[there.at(-1)!]!];
  const [low, high] = span(there.map((n) => spectrum.flux[n]!));
  const x = (wavelength: number) => MARGIN.left + ((wavelength - first) / (last - first || 1)) * (width - MARGIN.left - MARGIN.right);
  const y = (flux: number) => height - MARGIN.bottom - ((flux - low) / (high - low || 1)) * (height - MARGIN.top - MARGIN.bottom);
  context.font = "11px system-ui, sans-serif";
  axes(context, { x, y, first, last, low, high, width, height });
  marks(context, spectrum, lines, x, { first, last, height, width });
  context.save();
  context.beginPath();
  context.rect(MARGIN.left, MARGIN.top, width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom);
  context.clip();
  const sure = there.filter((n) => spectrum.error[n]! < (high - low) / 3); // the error of a bad pixel says nothing more
  trace(context, sure, (n) => x(spectrum.wavelength[n]!), (n) => y(low + spectrum.error[n]!), color("faint"), 1);
  trace(context, there, (n) => x(spectrum.wavelength[n]!), (n) => y(spectrum.flux[n]!), color("accent"), 1.2);
  if (cursor !== null) {
    context.strokeStyle = color("text");
    context.globalAlpha = 0.5;
    context.beginPath();
    context.moveTo(x(spectrum.wavelength[cursor]!), MARGIN.top);
    context.lineTo(x(spectrum.wavelength[cursor]!), height - MARGIN.bottom);
    context.stroke();
  }
  context.restore();
  const wavelengths = spectrum.wavelength;
  return {
    pixel(at) {
      const wanted = first + ((at - MARGIN.left) / (width - MARGIN.left - MARGIN.right)) * (last - first);
      if (wanted < first || wanted > last) return -1;
      let [from, to] = [0, wavelengths.length - 1];
      while (from < to) {
        const middle = (from + to) >> 1;
        if (wavelengths[middle]! < wanted) from = middle + 1;
        else to = middle;
      }
      return from;
    },
  };
}

/** Return the range of flux to show: most of it, so that one bad pixel does not flatten the rest; lines stay in. */
function span(flux: number[]): [number, number] {
  const sorted = Float64Array.from(flux).sort();
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
  const [low, high] = [at(0.005), at(0.9985)];
  const room = 0.06 * (high - low) || 1;
  return [Math.min(0, low) - (low < 0 ? room : 0), high + 2 * room];
}

interface Frame {
  x: (wavelength: number) => number;
  y: (flux: number) => number;
  first: number;
  last: number;
  low: number;
  high: number;
  width: number;
  height: number;
}

function axes(context: CanvasRenderingContext2D, { x, y, first, last, low, high, width, height }: Frame): void {
  context.fillStyle = color("soft");
  context.strokeStyle = color("rule");
  context.lineWidth = 1;
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const tick of ticks(first, last, Math.max(2, width / 90))) {
    context.beginPath();
    context.moveTo(x(tick), height - MARGIN.bottom);
    context.lineTo(x(tick), height - MARGIN.bottom + 4);
    context.stroke();
    context.fillText(tick.toLocaleString("en"), x(tick), height - MARGIN.bottom + 7);
  }
  context.fillText("wavelength, Å", (MARGIN.left + width - MARGIN.right) / 2, height - 13);
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const tick of ticks(low, high, Math.max(2, height / 60))) {
    context.beginPath();
    context.moveTo(MARGIN.left, y(tick));
    context.lineTo(width - MARGIN.right, y(tick));
    context.stroke();
    context.fillText(short(tick), MARGIN.left - 6, y(tick));
  }
}

/** Draw lines of atoms where they would be, with as many names as there is room for. */
function marks(context: CanvasRenderingContext2D, spectrum: Spectrum, lines: Site["lines"], x: (wavelength: number) => number, { first, last, height, width }: Pick<Frame, "first" | "last" | "height" | "width">): void {
  if (spectrum.z === null && spectrum.frame !== "rest") return;
  const shift = spectrum.frame === "rest" ? 1 : 1 + spectrum.z!;
  const inside = lines.filter(({ wavelength_angstrom: at }) => at * shift > first && at * shift < last);
  context.textAlign = "center";
  context.textBaseline = "alphabetic";
  const rows = [-Infinity, -Infinity];
  const most = Math.min(LINES, Math.floor(width / 42));
  const wanted = new Set(inside.slice(0, most)); // in order of importance, as site.json has them
  for (const line of [...inside].sort((a, b) => a.wavelength_angstrom - b.wavelength_angstrom)) {
    if (!wanted.has(line)) continue;
    const at = x(line.wavelength_angstrom * shift);
    context.strokeStyle = color("rule");
    context.setLineDash([3, 3]);
    context.beginPath();
    context.moveTo(at, MARGIN.top);
    context.lineTo(at, height - MARGIN.bottom);
    context.stroke();
    context.setLineDash([]);
    const half = context.measureText(line.name).width / 2 + 3;
    const row = rows.findIndex((end) => at - half > end);
    if (row < 0 || at + half > width) continue;
    rows[row] = at + half;
    context.fillStyle = color("soft");
    context.fillText(line.name, at, MARGIN.top - 5 - 13 * row);
  }
}

function trace(context: CanvasRenderingContext2D, there: number[], x: (n: number) => number, y: (n: number) => number, stroke: string, lineWidth: number): void {
  context.strokeStyle = stroke;
  context.lineWidth = lineWidth;
  context.lineJoin = "round";
  context.beginPath();
  let before = -2;
  for (const n of there) {
    if (n !== before + 1) context.moveTo(x(n), y(n));
    else context.lineTo(x(n), y(n));
    before = n;
  }
  context.stroke();
}

const near = new Map<Element, () => void>();
const watcher = "IntersectionObserver" in globalThis ? new IntersectionObserver((seen) => seen.forEach(({ isIntersecting, target }) => isIntersecting && near.get(target)?.()), { rootMargin: "300px" }) : null;

/** Return a small drawing of a galaxy's spectrum, read when it comes into view: for galaxies without a picture. */
export function sparkline(spectra: Spectra, row: number, id: string): HTMLElement {
  const canvas = h("canvas", { class: "picture spark", role: "img", "aria-label": `Spectrum of ${id}` });
  const show = () => {
    near.delete(canvas);
    watcher?.unobserve(canvas);
    spectra.get(row).then(
      (spectrum) => {
        if (!spectrum) return canvas.replaceWith(h("span", { class: "picture none" }, "no image"));
        sketch(canvas, spectrum);
        document.addEventListener("themechange", () => canvas.isConnected && sketch(canvas, spectrum));
      },
      () => canvas.replaceWith(h("span", { class: "picture none" }, "not read")),
    );
  };
  near.set(canvas, show);
  if (watcher) watcher.observe(canvas);
  else show();
  return canvas;
}

function sketch(canvas: HTMLCanvasElement, spectrum: Spectrum): void {
  const { context, width, height } = surface(canvas);
  const flux = smoothed(spectrum, Math.max(40, Math.round(width)));
  const known = flux.filter((one) => Number.isFinite(one));
  if (known.length < 2) return;
  const [low, high] = span(known);
  const there = flux.flatMap((one, n) => (Number.isFinite(one) ? [n] : []));
  trace(context, there, (n) => 6 + (n / (flux.length - 1)) * (width - 12), (n) => height - 10 - ((flux[n]! - low) / (high - low || 1)) * (height - 20), color("accent"), 1.2);
}

/** Return mean fluxes of as many stretches as are seen, NaN where there is no data. */
function smoothed({ flux, error }: Spectrum, stretches: number): number[] {
  return Array.from({ length: stretches }, (_, n) => {
    let [sum, count] = [0, 0];
    for (let i = Math.floor((n * flux.length) / stretches); i < ((n + 1) * flux.length) / stretches; i++) {
      if (!Number.isFinite(flux[i]!) || Number.isNaN(error[i]!)) continue;
      sum += flux[i]!;
      count++;
    }
    return count ? sum / count : NaN;
  });
}
