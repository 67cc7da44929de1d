// The filters of a search: a condition in SQL, sliders of common columns, a cone on the sky.
import { size, type Atlas } from "../atlas.ts";
import { checkedCondition } from "../expression.ts";
import type { Column } from "../manifest.ts";
import { type Query, readPosition } from "../query.ts";
import { told } from "../errors.ts";
import { h, short } from "./dom.ts";

const STEPS = 400;
const WAIT_MS = 120; // after the last move of a slider
const RADIUS_ARCSEC = 60;

export interface FilterActions {
  change(part: Partial<Query>): void;
}

/** The box of filters; `show` brings it to what a query says. */
export class Filters {
  readonly element: HTMLDetailsElement;
  #atlas: Atlas;
  #actions: FilterActions;
  #query!: Query;
  #where: HTMLTextAreaElement;
  #problem: HTMLElement;
  #count: HTMLElement;
  #clear: HTMLButtonElement;
  #sliders: Slider[];
  #position: HTMLInputElement;
  #radius: HTMLInputElement;
  #coneProblem: HTMLElement;

  constructor(atlas: Atlas, actions: FilterActions) {
    this.#atlas = atlas;
    this.#actions = actions;
    const none = () => actions.change({ where: "", ranges: {}, near: null });
    this.#clear = h("button", { class: "button bare small", onclick: none }, "Clear");
    this.#where = h("textarea", { id: "where", class: "field", rows: 2, spellcheck: false, autocapitalize: "off", autocomplete: "off", maxLength: 4000, placeholder: this.#example() });
    this.#where.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        this.#take();
      }
    });
    this.#problem = h("div", { id: "where-problem", "aria-live": "polite" });
    this.#count = h("span", { class: "hint", "aria-live": "polite" });
    this.#sliders = atlas.columns.sliders().map((column) => new Slider(column, (ends) => this.#slid(column.name, ends)));
    this.#position = h("input", { id: "position", class: "field", placeholder: "189.2 +62.2 or 12:36:49 +62:12:58", autocomplete: "off", spellcheck: false });
    this.#radius = h("input", { id: "radius", class: "field", type: "number", min: "0.1", step: "any", value: String(RADIUS_ARCSEC) });
    this.#coneProblem = h("div", { "aria-live": "polite" });
    this.element = h("details", { class: "side", open: window.innerWidth > 860, "aria-label": "Filters" }, h("summary", {}, "Filters"), ...this.#sections());
  }

  #sections(): HTMLElement[] {
    const sections: HTMLElement[] = [h("div", { class: "spread filters-head" }, h("h2", {}, "Filters"), this.#count, this.#clear)];
    if (this.#atlas.site.facts) {
      const apply = h("button", { class: "button small", onclick: () => this.#take() }, "Apply");
      const note = h("p", { class: "hint" }, `DuckDB runs in your browser; the first condition loads ${size(this.#atlas.loads.sql)}.`);
      sections.push(h("section", { class: "section" }, h("label", { for: "where" }, "Condition in SQL"), this.#where, h("div", { class: "pair" }, apply, this.#columnList()), this.#problem, note));
    }
    if (this.#sliders.length) sections.push(h("section", { class: "section" }, ...this.#sliders.map((slider) => slider.element)));
    if (this.#atlas.columns.has("ra") && this.#atlas.columns.has("dec")) {
      const apply = h("button", { class: "button small", onclick: () => this.#takeCone() }, "Apply");
      for (const field of [this.#position, this.#radius]) field.addEventListener("keydown", (event) => event.key === "Enter" && this.#takeCone());
      const radius = h("div", { class: "radius" }, h("label", { for: "radius" }, "Radius, arcsec"), this.#radius, apply);
      sections.push(h("section", { class: "section" }, h("label", { for: "position" }, "Around a position (ICRS)"), this.#position, radius, this.#coneProblem));
    }
    return sections;
  }

  /** Show what is asked, how many pass, and what is wrong with its condition. */
  show(query: Query, { passing, problem }: { passing: number | null; problem: string | null }): void {
    this.#query = query;
    const isAny = query.where !== "" || query.near !== null || Object.keys(query.ranges).length > 0;
    this.#clear.classList.toggle("hidden", !isAny);
    if (document.activeElement !== this.#where || !problem) this.#where.value = query.where || (problem ? this.#where.value : "");
    this.#problem.replaceChildren(...(problem ? [h("p", { class: "error" }, problem)] : []));
    this.#where.setAttribute("aria-invalid", String(problem !== null));
    if (problem) this.#where.setAttribute("aria-describedby", "where-problem");
    this.#count.textContent = isAny && passing !== null ? `${passing.toLocaleString("en")} of ${this.#atlas.site.rows.toLocaleString("en")} pass` : "";
    for (const slider of this.#sliders) slider.show(query.ranges[slider.name] ?? [null, null]);
    if (document.activeElement !== this.#position) this.#position.value = query.near ? `${query.near.ra} ${query.near.dec < 0 ? "" : "+"}${query.near.dec}` : "";
    if (query.near && document.activeElement !== this.#radius) this.#radius.value = String(query.near.radius_arcsec);
  }

  #take(): void {
    const text = this.#where.value.trim();
    try {
      if (text) checkedCondition(text);
    } catch (error) {
      this.#problem.replaceChildren(h("p", { class: "error" }, told(error)));
      this.#where.setAttribute("aria-invalid", "true");
      return;
    }
    this.#actions.change({ where: text });
  }

  #takeCone(): void {
    const text = this.#position.value.trim();
    if (!text) return this.#actions.change({ near: null });
    const position = readPosition(text);
    const radius_arcsec = Number(this.#radius.value);
    const wrong = !position
      ? `“${text.slice(0, 60)}” is no position. Write degrees such as 189.2 +62.2, or 12:36:49 +62:12:58.`
      : !(radius_arcsec > 0 && radius_arcsec <= 648_000)
        ? "The radius must be above 0 and at most 648,000 arcsec."
        : null;
    this.#coneProblem.replaceChildren(...(wrong ? [h("p", { class: "error" }, wrong)] : []));
    if (!wrong && position) this.#actions.change({ near: { ...position, radius_arcsec } });
  }

  #slid(name: string, ends: [number | null, number | null]): void {
    const ranges = { ...this.#query.ranges };
    if (ends[0] === null && ends[1] === null) delete ranges[name];
    else ranges[name] = ends;
    this.#actions.change({ ranges });
  }

  #example(): string {
    const there = new Set(this.#atlas.site.columns.map((column) => column.name));
    return ["z < 0.05 AND mag_r < 17", "z < 0.1", "mag_r < 20", "axis_ratio < 0.4"].find((text) => (text.match(/[a-z_]+(?= <)/g) ?? []).every((name) => there.has(name))) ?? "column < 1";
  }

  #columnList(): HTMLElement {
    const list = h("div", { class: "list columns-list hidden" });
    const button = h("button", { class: "button bare small", "aria-expanded": "false", onclick: () => toggle() }, "Columns");
    const toggle = () => {
      const isOpen = !list.classList.toggle("hidden");
      button.setAttribute("aria-expanded", String(isOpen));
      if (!isOpen || list.childElementCount) return;
      for (const { name, unit, description } of this.#atlas.site.columns) {
        const insert = () => {
          const quoted = /^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
          this.#where.setRangeText(quoted, this.#where.selectionStart, this.#where.selectionEnd, "end");
          this.#where.focus();
        };
        list.append(h("button", { onclick: insert, title: description ?? name }, h("code", {}, name), unit && h("i", {}, ` ${unit}`), description && h("span", {}, description)));
      }
    };
    return h("div", { class: "column-picker" }, button, list);
  }
}

/** Two ends of a column, over its histogram; an end that is not moved does not count. */
class Slider {
  readonly name: string;
  readonly element: HTMLElement;
  #column: Column;
  #low: HTMLInputElement;
  #high: HTMLInputElement;
  #values: HTMLElement;
  #bars: HTMLElement[];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(column: Column, take: (ends: [number | null, number | null]) => void) {
    this.name = column.name;
    this.#column = column;
    const most = Math.max(1, ...column.histogram!);
    this.#bars = column.histogram!.map((count) => {
      const bar = h("i");
      bar.style.height = count ? `${Math.max(6, (100 * Math.sqrt(count)) / Math.sqrt(most))}%` : "0";
      return bar;
    });
    const end = (which: string) => h("input", { type: "range", min: "0", max: String(STEPS), step: "1", "aria-label": `${which} of ${column.name}` });
    [this.#low, this.#high] = [end("Lowest"), end("Highest")];
    this.#low.value = "0";
    this.#high.value = String(STEPS);
    this.#values = h("span", { class: "values" });
    const moved = (which: HTMLInputElement) => () => {
      if (which === this.#low && +this.#low.value > +this.#high.value) this.#low.value = this.#high.value;
      if (which === this.#high && +this.#high.value < +this.#low.value) this.#high.value = this.#low.value;
      this.#tell();
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => take(this.#ends()), WAIT_MS);
    };
    this.#low.addEventListener("input", moved(this.#low));
    this.#high.addEventListener("input", moved(this.#high));
    const unit = column.unit ? ` ${column.unit}` : "";
    this.element = h(
      "div",
      { class: "slider", role: "group", "aria-label": column.name + unit, title: column.description ?? "" },
      h("div", { class: "spread" }, h("span", { class: "label" }, column.name), this.#values),
      h("div", { class: "histogram", "aria-hidden": "true" }, ...this.#bars),
      h("div", { class: "range" }, this.#low, this.#high),
    );
    this.#tell();
  }

  show([low, high]: [number | null, number | null]): void {
    if (this.element.contains(document.activeElement) && JSON.stringify(this.#ends()) === JSON.stringify([low, high])) return;
    this.#low.value = String(low === null ? 0 : this.#place(low));
    this.#high.value = String(high === null ? STEPS : this.#place(high));
    this.#tell([low, high]);
  }

  #place(value: number): number {
    const { min, max } = this.#column;
    return Math.round(((value - min!) / (max! - min! || 1)) * STEPS);
  }

  #ends(): [number | null, number | null] {
    const { min, max } = this.#column;
    const value = (step: number) => Number((min! + ((max! - min!) * step) / STEPS).toPrecision(5));
    return [+this.#low.value === 0 ? null : value(+this.#low.value), +this.#high.value === STEPS ? null : value(+this.#high.value)];
  }

  #tell(ends = this.#ends()): void {
    const [low, high] = [ends[0] ?? this.#column.min!, ends[1] ?? this.#column.max!];
    const unit = this.#column.unit ? ` ${this.#column.unit}` : "";
    this.#values.textContent = `${short(Number(low.toPrecision(4)))} – ${short(Number(high.toPrecision(4)))}${unit}`;
    this.element.classList.toggle("active", ends[0] !== null || ends[1] !== null);
    const [from, to] = [+this.#low.value / STEPS, +this.#high.value / STEPS];
    this.#bars.forEach((bar, n) => bar.classList.toggle("in", (ends[0] !== null || ends[1] !== null) && (n + 1) / this.#bars.length > from && n / this.#bars.length < to));
    this.#low.setAttribute("aria-valuetext", short(low) + unit);
    this.#high.setAttribute("aria-valuetext", short(high) + unit);
    this.#low.style.zIndex = from > 0.5 ? "1" : ""; // so that both can be taken where they meet
  }
}
