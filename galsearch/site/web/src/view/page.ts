// The page: what is asked above, what is found below, one object beside it. All state is in the address.
import iconAddress from "../../icon.svg?url";
import { number, size, type Answer, type Atlas } from "../atlas.ts";
import type { Card } from "../cards.ts";
import { Canceled, ConditionError, SiteError, told } from "../errors.ts";
import { tableOf, toCsv, toJson, toVotable } from "../exports.ts";
import { separation } from "../filters.ts";
import { FIRST_K, formula, fromHash, isWeight, MOST_K, MOST_TEXT, type Query, type State, type Term, toHash, type View } from "../query.ts";
import { about, code, copy } from "./about.ts";
import { download, h, icon, ICONS } from "./dom.ts";
import { Filters } from "./filters.ts";
import { gallery, table } from "./gallery.ts";
import { maps } from "./maps.ts";
import { panel } from "./panel.ts";
import { sparkline } from "./plots.ts";
import { turnTheme } from "./theme.ts";

const VIEWS: [View, string][] = [["gallery", "Gallery"], ["table", "Table"], ["maps", "Maps"]];
const SEEN = 24; // tiles at first, on most screens
const MINUS = -0.5; // of what is asked to be absent

export class Page {
  #atlas: Atlas;
  #root: HTMLElement;
  #state!: State;
  #answer: Answer | null = null;
  #answered = ""; // the query that it answers
  #run = 0;
  #isRunning = false;
  #whereProblem: string | null = null;
  #filters: Filters;
  #input: HTMLInputElement;
  #terms = h("div", { class: "terms", role: "group", "aria-label": "What is asked" });
  #examples = h("div", { class: "examples", role: "group", "aria-label": "Examples" });
  #notices = h("div", { class: "notices", role: "status" });
  #status = h("div", { class: "status", role: "status" });
  #progress = h("div", { class: "progress hidden" });
  #results = h("div", { class: "results" });
  #views = h("div", { class: "views" });
  #columns = h("div", { class: "columns inner" });
  #panel: HTMLElement | null = null;
  #shownObject: string | null = null;
  #sort: { by: string | null; down: boolean } = { by: null, down: true };
  #file: HTMLInputElement;

  constructor(atlas: Atlas, root: HTMLElement) {
    this.#atlas = atlas;
    this.#root = root;
    this.#filters = new Filters(atlas, { change: (part) => this.#change(part) });
    this.#input = h("input", { type: "search", id: "ask", list: "phrases", autocomplete: "off", maxLength: MOST_TEXT, placeholder: this.#example(), "aria-label": "Search galaxies in words", enterKeyHint: "search" });
    this.#file = h("input", { type: "file", accept: "image/*", class: "hidden", tabIndex: -1, "aria-label": "An image to compare with" });
  }

  /** Return words that this site knows, to show what may be typed. */
  #example(): string {
    const chips = this.#atlas.chips(null);
    const phrases = (chips?.examples ?? []).map((n) => chips!.phrases[n]!);
    return phrases.find((phrase) => phrase.length > 20) ?? phrases[0] ?? "";
  }

  /** Draw the page and ask what the address says. */
  start(): void {
    this.#atlas.prepare();
    this.#root.replaceChildren(this.#head(), h("main", {}, h("div", { class: "inner" }, this.#notices), this.#columns), this.#foot());
    this.#columns.append(
      this.#filters.element,
      h("section", { "aria-label": "Results" }, h("h2", { class: "unseen" }, "Results"), h("div", { class: "bar-of-results" }, this.#status, this.#views), this.#progress, this.#results),
    );
    const follow = () => document.documentElement.style.setProperty("--top", `${this.#root.querySelector(".top")!.getBoundingClientRect().height}px`);
    new ResizeObserver(follow).observe(this.#root.querySelector(".top")!);
    window.addEventListener("hashchange", () => this.#read());
    document.addEventListener("keydown", (event) => this.#key(event));
    this.#read();
    setTimeout(() => void this.#atlas.clean(), 4000);
  }

  #read(): void {
    const { state, wrong } = fromHash(location.hash);
    this.#state = state;
    [...wrong, ...this.#atlas.fit(state.query)].forEach((text) => this.#tell(text));
    void this.#show();
  }

  /** Change what is asked; the address follows, and with it the way back. */
  #change(part: Partial<Query>): void {
    this.#goto({ query: { ...this.#state.query, k: FIRST_K, ...part } });
  }

  #goto(part: Partial<State>): void {
    this.#state = { ...this.#state, ...part };
    const hash = toHash(this.#state) || location.pathname + location.search;
    if (hash !== location.hash) history.pushState(null, "", hash);
    void this.#show();
  }

  async #show(): Promise<void> {
    this.#drawTerms();
    this.#drawViews();
    void this.#drawObject();
    const { query } = this.#state;
    const key = JSON.stringify(query, (name, value) => (name === "vector" ? Array.from((value ?? []) as Float32Array).slice(0, 8) : value));
    if (key === this.#answered && this.#answer) return this.#drawAnswer();
    const run = ++this.#run;
    if (this.#isRunning) this.#atlas.cuts.cancel(query.where);
    this.#isRunning = true;
    this.#whereProblem = null;
    this.#drawFilters();
    this.#results.classList.add("waiting");
    this.#results.setAttribute("aria-busy", "true");
    if (!this.#results.childElementCount) this.#status.textContent = "Searching …";
    const meter = this.#meter(run);
    try {
      const answer = await this.#atlas.search(query, meter.add);
      if (run !== this.#run) return;
      [this.#answer, this.#answered] = [answer, key];
      this.#sort = { by: null, down: true };
      this.#drawAnswer();
    } catch (error) {
      if (run !== this.#run) return;
      this.#failed(error);
    } finally {
      meter.end();
      if (run === this.#run) {
        this.#isRunning = false;
        this.#results.classList.remove("waiting");
        this.#results.removeAttribute("aria-busy");
        this.#drawFilters();
      }
    }
  }

  #failed(error: unknown): void {
    if (!(error instanceof SiteError || error instanceof Canceled)) console.error(error);
    const said = told(error);
    if (error instanceof ConditionError || (error instanceof Canceled && this.#state.query.where)) this.#whereProblem = said;
    else this.#tell(said);
    this.#answered = "";
    this.#status.replaceChildren(h("span", {}, this.#answer ? "No new results; those below are of the query before." : "No results."));
  }

  /** Wait no longer: the results of before stay. */
  #cancel(): void {
    this.#run++;
    this.#isRunning = false;
    this.#atlas.cuts.cancel();
    this.#results.classList.remove("waiting");
    this.#results.removeAttribute("aria-busy");
    this.#failed(new Canceled("Canceled; apply it again to go on."));
    this.#drawFilters();
  }

  // ---- the head

  #head(): HTMLElement {
    const { site } = this.#atlas;
    const asked = h("form", { class: "ask", role: "search", onsubmit: (event: Event) => (event.preventDefault(), this.#ask(null)) }, this.#input);
    if (this.#atlas.pictures) {
      const { bytes } = this.#atlas.pictures.about;
      const title = `Compare with an image of yours: loads ${size(bytes + this.#runtimeBytes())} once, and the image stays in your browser`;
      asked.append(this.#file, h("button", { class: "button bare", "aria-label": title, title, onclick: () => this.#file.click() }, icon(ICONS.image)));
      this.#file.addEventListener("change", () => void this.#takeFile());
    }
    asked.append(
      h("button", { class: "button bare", "aria-label": "Add these words", title: "Add these words to what is asked", onclick: () => this.#ask(1) }, icon(ICONS.plus)),
      h("button", { class: "button bare", "aria-label": "Without these words", title: "Ask for less of these words", onclick: () => this.#ask(MINUS) }, icon(ICONS.minus)),
      h("button", { class: "button primary", type: "submit", "aria-label": "Search" }, icon(ICONS.search)),
    );
    const tools = h(
      "div",
      { class: "tools" },
      h("button", { class: "button bare", "aria-label": "Light or dark", title: "Light or dark", onclick: turnTheme }, icon(ICONS.theme)),
      h("button", { class: "button bare", "aria-label": "About, cite", title: "About, cite", onclick: () => about(this.#atlas) }, icon(ICONS.info)),
    );
    const brand = h("div", { class: "brand" }, h("img", { src: iconAddress, alt: "", width: 34, height: 34 }), h("div", {}, h("h1", {}, site.title), h("p", {}, `${number(site.rows)} galaxies`)));
    const bar = h("div", { class: "bar" }, brand, this.#atlas.main ? asked : h("span"), tools);
    return h("header", { class: "top" }, h("div", { class: "inner" }, bar, h("datalist", { id: "phrases" }), this.#terms, this.#examples));
  }

  #runtimeBytes(): number {
    const { words } = this.#atlas.loads;
    return words ? words - (this.#atlas.site.text_encoder?.bytes_total ?? 0) : 3.7e6;
  }

  #drawTerms(): void {
    const { query } = this.#state;
    this.#terms.classList.toggle("hidden", !query.terms.length);
    this.#terms.replaceChildren(...query.terms.map((term, n) => this.#term(term, n)));
    if (query.terms.length) this.#terms.append(h("button", { class: "button bare small", onclick: () => this.#change({ terms: [], space: null }) }, "Clear"));
    const chips = this.#atlas.chips(query.space);
    const list = this.#root.querySelector<HTMLDataListElement>("#phrases");
    if (list && list.dataset.space !== String(query.space)) {
      list.dataset.space = String(query.space);
      list.replaceChildren(...(chips?.phrases ?? []).map((phrase) => h("option", { value: phrase })));
      this.#examples.replaceChildren(...(chips?.examples ?? []).map((n) => this.#chip(chips!.phrases[n]!)));
    }
    this.#examples.classList.toggle("hidden", !chips?.examples.length);
    const only = query.terms.length === 1 && query.terms[0]!.kind === "text" ? query.terms[0]!.value : null;
    for (const chip of this.#examples.children) chip.setAttribute("aria-pressed", String(chip.textContent === only));
  }

  #chip(phrase: string): HTMLElement {
    const ask = (event: MouseEvent) => {
      const term: Term = { kind: "text", value: phrase, weight: event.altKey ? MINUS : 1 };
      this.#change({ terms: event.shiftKey || event.altKey ? [...this.#state.query.terms, term] : [term] });
    };
    return h("button", { class: "chip", "aria-pressed": "false", title: "Shift adds it, Alt asks for less of it", onclick: ask }, phrase);
  }

  #term(term: Term, n: number): HTMLElement {
    const { terms } = this.#state.query;
    const replace = (weight: number) => this.#change({ terms: terms.map((one, m) => (m === n ? { ...one, weight } : one)) });
    const name = term.kind === "object" ? `like ${term.value}` : term.kind === "image" ? `your image ${term.value}` : term.value;
    const weight = h("input", { type: "number", step: "0.1", min: "0.1", max: "10", value: String(Math.abs(term.weight)), "aria-label": `Weight of ${name}` });
    weight.addEventListener("change", () => {
      const value = Math.sign(term.weight) * Math.abs(Number(weight.value));
      if (isWeight(value)) replace(value);
      else weight.value = String(Math.abs(term.weight));
    });
    const isMinus = term.weight < 0;
    return h(
      "span",
      { class: isMinus ? "term minus" : "term" },
      h("button", { class: "sign", "aria-label": isMinus ? `Ask for more of ${name}` : `Ask for less of ${name}`, title: "Plus or minus", onclick: () => replace(-term.weight) }, isMinus ? "−" : "+"),
      h("span", { class: "what", title: name }, name),
      terms.length > 1 && weight,
      h("button", { "aria-label": `Remove ${name}`, onclick: () => this.#change({ terms: terms.filter((_, m) => m !== n) }) }, icon(ICONS.close)),
    );
  }

  /** Ask the words in the box: alone, or with a weight beside what is there. An object_id is understood too. */
  #ask(weight: number | null): void {
    const value = this.#input.value.trim().slice(0, MOST_TEXT);
    if (!value) return this.#input.focus();
    void this.#kindOf(value).then((kind) => {
      const term: Term = { kind, value, weight: weight ?? 1 };
      this.#input.value = "";
      this.#change({ terms: weight === null ? [term] : [...this.#state.query.terms, term] });
    });
  }

  async #kindOf(value: string): Promise<"text" | "object"> {
    if (this.#atlas.chip(this.#state.query.space, value) >= 0) return "text";
    return (await this.#atlas.row(value).catch(() => null)) === null ? "text" : "object";
  }

  async #takeFile(): Promise<void> {
    const file = this.#file.files?.[0];
    this.#file.value = "";
    if (!file) return;
    const meter = this.#meter(this.#run);
    try {
      const vector = await this.#atlas.pictures!.encode(file, meter.add);
      this.#change({ terms: [{ kind: "image", value: file.name.slice(0, 60), weight: 1, vector }], space: null });
    } catch (error) {
      this.#tell(told(error));
    } finally {
      meter.end();
    }
  }

  // ---- the answer

  #drawFilters(): void {
    const passing = this.#answer && !this.#isRunning ? this.#answer.passing : null;
    this.#filters.show(this.#state.query, { passing, problem: this.#whereProblem });
  }

  #drawViews(): void {
    const { view, query } = this.#state;
    const tabs = h("div", { class: "tabs", role: "group", "aria-label": "Shown as" }, ...VIEWS.map(([name, label]) => h("button", { "aria-pressed": String(view === name), onclick: () => this.#goto({ view: name }) }, label)));
    const menu = h("div", { class: "list hidden" });
    const toggle = h("button", { class: "button small", "aria-expanded": "false", "aria-haspopup": "true" }, icon(ICONS.save), "Save");
    const offer = (label: string, act: () => void | Promise<void>) => menu.append(h("button", { onclick: () => (close(), void act()) }, label));
    const close = () => (menu.classList.add("hidden"), toggle.setAttribute("aria-expanded", "false"));
    toggle.addEventListener("click", () => toggle.setAttribute("aria-expanded", String(!menu.classList.toggle("hidden"))));
    menu.addEventListener("keydown", (event) => event.key === "Escape" && (close(), toggle.focus()));
    for (const [kind, label] of [["csv", "Hits as CSV"], ["vot", "Hits as VOTable"], ["json", "Hits as JSON"]] as const) offer(label, () => this.#save(kind));
    offer("Copy a link to this", () => this.#copyLink());
    offer("Python and DuckDB", () => code(this.#atlas, this.#state.query));
    const spaces = this.#atlas.site.spaces;
    const by = h("select", { class: "button small", "aria-label": "Compare by" }, ...spaces.map((space) => h("option", { value: space.name, selected: space.name === (query.space ?? this.#atlas.main?.name) }, `by ${space.name}`)));
    by.addEventListener("change", () => this.#change({ space: by.value === this.#atlas.main?.name ? null : by.value }));
    this.#views.replaceChildren(...(spaces.length > 1 ? [by] : []), tabs, h("div", { class: "menu" }, toggle, menu));
  }

  #drawAnswer(): void {
    const answer = this.#answer!;
    const { query, view, object } = this.#state;
    const what = formula(query);
    const shown = answer.rows.length;
    const counted = answer.scores ? `${number(shown)} closest of ${number(answer.passing)}` : `${number(shown)} of ${number(answer.passing)} galaxies`;
    this.#status.replaceChildren(...(what ? [h("strong", {}, what), " "] : []), h("span", { title: answer.plan }, `${counted}${answer.scores ? ` in ${answer.milliseconds < 1000 ? `${Math.max(1, Math.round(answer.milliseconds))} ms` : `${(answer.milliseconds / 1000).toFixed(1)} s`}` : ""}`));
    if (!shown) {
      const why = answer.passing ? "None of the galaxies that pass has a vector here." : "No galaxy passes the filters. Widen them or clear them.";
      this.#results.replaceChildren(h("p", { class: "nothing" }, why));
      this.#results.dataset.answers = location.hash;
      return;
    }
    const cards = this.#cards(answer);
    const actions = { pick: (card: Card) => this.#pick(card), like: (card: Card) => this.#like(card, query.space), note: (card: Card) => this.#note(card), instead: (card: Card) => this.#atlas.spectra && sparkline(this.#atlas.spectra, card.row, card.id) };
    const whole = Promise.all(cards);
    whole.catch((error) => error instanceof Canceled || this.#tell(told(error)));
    if (view === "gallery") this.#results.replaceChildren(gallery(answer, cards, object, actions), this.#more(answer));
    else if (view === "maps") {
      const selected = this.#panel?.dataset.row !== undefined ? Number(this.#panel.dataset.row) : null;
      this.#results.replaceChildren(maps(this.#atlas, { hits: answer.scores || answer.mask ? answer.rows : [], mask: answer.mask, selected }, (row) => void this.#pickRow(row)));
    } else {
      void whole.then((all) => {
        if (this.#answer !== answer || this.#state.view !== "table") return;
        this.#results.replaceChildren(table(this.#atlas.site, answer, all, this.#state.object, actions, this.#sort), this.#more(answer));
      }, () => {});
    }
    void whole.then(() => {
      performance.mark("galsearch:drawn");
      this.#results.dataset.answers = location.hash; // what is drawn, for who waits for it
    }, () => {});
  }

  /** Read the cards of an answer, those that are seen first before the others, which nobody may wait for any more. */
  #cards(answer: Answer): Promise<Card>[] {
    const cards: Promise<Card>[] = [];
    let before: Promise<unknown> = Promise.resolve();
    for (let from = 0; from < answer.rows.length; from += SEEN) {
      const rows = answer.rows.slice(from, from + SEEN);
      const read = before.then(() => {
        if (this.#answer !== answer) throw new Canceled("Another question was asked.");
        return Promise.all(this.#atlas.cards.get(rows));
      });
      before = read;
      cards.push(...rows.map((_, n) => read.then((all) => all[n]!)));
    }
    return cards;
  }

  /** Return what stands below a tile: what the query is about. */
  #note(card: Card): string {
    const { near } = this.#state.query;
    if (near && card.ra !== null && card.dec !== null) return `${separation(card.ra, card.dec, near.ra, near.dec).toFixed(1)}″`;
    const { z, mag_r } = card.columns;
    return [typeof z === "number" ? `z ${z.toFixed(3).replace(/^-(?=0\.000)/, "").replace("-", "−")}` : "", typeof mag_r === "number" ? `r ${mag_r.toFixed(1)}` : ""].filter(Boolean).join(" · ");
  }

  #more(answer: Answer): HTMLElement {
    const { k } = this.#state.query;
    if (answer.rows.length < k || answer.rows.length >= answer.passing || k >= MOST_K) return h("span");
    return h("div", { class: "show-more" }, h("button", { class: "button", onclick: () => this.#change({ k: Math.min(MOST_K, k * 2) }) }, "Show more"));
  }

  #pick(card: Card): void {
    this.#goto({ object: this.#state.object === card.id ? null : card.id });
  }

  async #pickRow(row: number): Promise<void> {
    try {
      this.#pick(await this.#atlas.cards.get([row])[0]!);
    } catch (error) {
      this.#tell(told(error));
    }
  }

  #like(card: Card, space: string | null): void {
    this.#change({ terms: [{ kind: "object", value: card.id, weight: 1 }], space: space === this.#atlas.main?.name ? null : space });
    window.scrollTo({ top: 0 });
  }

  // ---- one object

  async #drawObject(): Promise<void> {
    const { object, query } = this.#state;
    for (const tile of this.#results.querySelectorAll<HTMLElement>("[data-id]")) tile.setAttribute("aria-pressed", String(tile.dataset.id === object));
    const key = JSON.stringify([object, query.space]);
    if (key === this.#shownObject) return;
    this.#shownObject = key;
    if (object === null) {
      const { activeElement } = document;
      const isInside = this.#panel?.contains(activeElement);
      this.#panel?.remove();
      this.#panel = null;
      this.#columns.classList.remove("open");
      if (isInside) this.#results.querySelector<HTMLElement>(".tile, .tile-link")?.focus();
      return;
    }
    try {
      const row = await this.#atlas.row(object);
      if (row === null) throw new SiteError(`This site has no object “${object.slice(0, 80)}”. Check the link.`);
      const card = await this.#atlas.cards.get([row])[0]!;
      if (this.#state.object !== object) return;
      const drawn = panel(this.#atlas, card, query.space, {
        close: () => this.#goto({ object: null }),
        like: (one, space) => this.#like(one, space),
        add: (one, weight) => this.#change({ terms: [...this.#state.query.terms, { kind: "object", value: one.id, weight }] }),
        open: (id) => this.#goto({ object: id }),
      });
      drawn.dataset.row = String(row);
      this.#panel?.remove();
      this.#columns.append((this.#panel = drawn));
      this.#columns.classList.add("open");
      if (this.#state.view === "maps" && this.#answer) this.#drawAnswer();
    } catch (error) {
      this.#shownObject = null;
      this.#tell(told(error));
    }
  }

  // ---- beside

  /** Say how much has come of what is large; nothing where it comes at once. */
  #meter(run: number): { add: (bytes: number) => void; end: () => void } {
    let got = 0;
    const bar = h("progress", { "aria-label": "Loading" });
    const text = h("span");
    const cancel = h("button", { class: "button small", onclick: () => (this.#cancel(), end()) }, "Cancel");
    const { words, sql } = this.#atlas.loads;
    const wanted = (this.#state.query.where && !this.#atlas.cuts.loaded ? sql : 0) + (this.#state.query.terms.some((term) => term.kind === "text" && this.#atlas.chip(this.#state.query.space, term.value) < 0) ? words : 0);
    const end = () => {
      clearTimeout(timer);
      bar.remove();
      if (this.#progress.contains(text)) this.#progress.classList.add("hidden");
    };
    const timer = setTimeout(() => {
      if (run !== this.#run) return;
      this.#progress.replaceChildren(bar, text, cancel);
      this.#progress.classList.remove("hidden");
      text.textContent = "Working …";
    }, 300);
    const add = (bytes: number) => {
      got += bytes;
      if (wanted) Object.assign(bar, { max: Math.max(wanted, got), value: got });
      text.textContent = wanted ? `${size(got)} of about ${size(Math.max(wanted, got))}, once; it stays in this browser` : `${size(got)} read`;
    };
    return { add, end };
  }

  #tell(text: string): void {
    if ([...this.#notices.querySelectorAll("p")].some((one) => one.textContent === text)) return;
    const notice = h("div", { class: "notice" }, h("p", { class: "error" }, text));
    notice.append(h("button", { class: "button bare", "aria-label": "Dismiss", onclick: () => notice.remove() }, icon(ICONS.close)));
    this.#notices.append(notice);
    while (this.#notices.childElementCount > 4) this.#notices.firstElementChild!.remove();
  }

  async #save(kind: "csv" | "vot" | "json"): Promise<void> {
    const answer = this.#answer;
    if (!answer) return;
    try {
      const cards = await Promise.all(this.#atlas.cards.get(answer.rows));
      const hits = tableOf(this.#atlas.site, cards, answer.scores);
      if (kind === "csv") download("hits.csv", toCsv(hits), "text/csv");
      else if (kind === "vot") download("hits.vot", toVotable(this.#atlas.site, hits), "application/x-votable+xml");
      else download("hits.json", toJson(this.#atlas.site, this.#state.query, hits), "application/json");
    } catch (error) {
      this.#tell(told(error));
    }
  }

  async #copyLink(): Promise<void> {
    const isCopied = await copy(location.href);
    this.#status.replaceChildren(h("span", {}, isCopied ? "The link is copied." : `Copy the address of this page: ${location.href}`));
  }

  #key(event: KeyboardEvent): void {
    const target = event.target as HTMLElement;
    const isTyping = target.matches("input, textarea, select");
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.#input.focus();
    } else if (event.key === "Escape" && !document.querySelector("dialog[open]") && this.#state.object !== null && !isTyping) this.#goto({ object: null });
  }

  #foot(): HTMLElement {
    return h(
      "footer",
      { class: "foot" },
      h("div", { class: "inner" }, h("span", {}, "Searched in your browser: no server, nothing leaves this page."), h("button", { onclick: () => about(this.#atlas) }, "About, cite"), h("button", { onclick: () => code(this.#atlas, this.#state.query) }, "Open in Python or DuckDB"), h("span", {}, this.#atlas.site.software)),
    );
  }
}
