/** A bar chart of how often each digit of a term occurs among its first thousand, and among all. */

import { drawn, element } from "./dom.js";
import { grouped } from "./numbers.js";

const HEIGHT = 130;
const TOP = 24;
const BOTTOM = 22;
const LEFT = 44;
const RIGHT = 8;

/** Percents between two lines: the least that gives at most `MOST_LINES` lines. */
const TICKS = [1, 2, 5, 10, 20, 50];

const MOST_LINES = 5;

const percent = (share) => `${(share * 100).toFixed(2)} %`;

export class Frequencies {
  #place;
  #worker = null;
  #result = null;
  #width = 0;
  #status = element("p", { className: "counting" });
  #svg = drawn("svg", { role: "img" });
  #table = element("table");

  /** Show the chart in `place`, which is hidden until `clear` is called with a path. */
  constructor(place) {
    this.#place = place;
    this.#status.setAttribute("role", "status");
    const figure = element("figure", {}, this.#status, this.#svg, this.#table);
    place.append(figure);
    place.addEventListener("toggle", () => this.#count());
    new ResizeObserver(([entry]) => {
      this.#width = Math.floor(entry.contentRect.width);
      this.#draw();
    }).observe(figure);
  }

  /** Forget the term. Count the term at `path`, if any, when the chart is opened. */
  clear(path = null) {
    this.#worker?.terminate();
    this.#worker = null;
    this.#result = null;
    this.#place.open = false;
    this.#place.hidden = path === null;
    this.#place.dataset.path = path ?? "";
    this.#svg.replaceChildren();
    this.#svg.setAttribute("height", 0);
    this.#table.replaceChildren();
    this.#status.textContent = "";
  }

  #count() {
    if (!this.#place.open || this.#worker || this.#result) {
      return;
    }
    this.#status.textContent = "Counting…";
    this.#worker = new Worker("/page/counter.js", { type: "module" });
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = () => this.#receive({ failure: "the browser starts no worker" });
    this.#worker.postMessage(this.#place.dataset.path);
  }

  #receive({ progress, failure, first, all }) {
    if (progress !== undefined) {
      this.#status.textContent = `Counting… ${Math.floor(progress * 100)} %`;
      return;
    }
    this.#worker.terminate();
    this.#worker = null;
    if (failure) {
      this.#status.textContent =
        `The digits could not be counted (${failure}). Close this, and open it again.`;
      return;
    }
    this.#status.textContent = "";
    this.#result = [{ of: "all", title: "all digits", counts: all }];
    if (first) {
      this.#result.unshift({ of: "first", title: "the first 1,000 digits", counts: first });
    }
    for (const series of this.#result) {
      series.total = series.counts.reduce((sum, count) => sum + count, 0);
    }
    this.#tabulate();
    this.#draw();
  }

  #tabulate() {
    const head = ["Digit", ...this.#result.map(({ title }) => `In ${title}`)];
    const rows = this.#result[0].counts.map((_, digit) => {
      const cells = this.#result.map(({ counts, total }) => {
        const count = grouped(String(counts[digit]));
        return element("td", {}, `${count} (${percent(counts[digit] / total)})`);
      });
      return element("tr", {}, element("th", { scope: "row" }, String(digit)), ...cells);
    });
    const names = head.map((name) => element("th", { scope: "col" }, name));
    this.#table.replaceChildren(
      element("thead", {}, element("tr", {}, ...names)),
      element("tbody", {}, ...rows),
    );
  }

  #draw() {
    if (!this.#result || this.#width === 0) {
      return;
    }
    const shares = this.#result.map(({ counts, total }) => counts.map((count) => count / total));
    const highest = Math.max(...shares.flat(), 0.1);
    const step = TICKS.find((tick) => (highest * 100) / tick <= MOST_LINES) ?? 50;
    const height = TOP + HEIGHT + BOTTOM;
    const describe = this.#result.map(({ title, counts, total }) => {
      const ends = [Math.min(...counts), Math.max(...counts)];
      return `each is ${ends.map((count) => percent(count / total)).join(" to ")} of ${title}`;
    });
    for (const [name, value] of Object.entries({
      width: this.#width,
      height,
      viewBox: `0 0 ${this.#width} ${height}`,
      "aria-label": `How often each digit occurs: ${describe.join("; ")}.`,
    })) {
      this.#svg.setAttribute(name, value);
    }
    const up = (share) => Math.round((TOP + HEIGHT * (1 - share / highest)) * 10) / 10;
    this.#svg.replaceChildren(this.#legend(), ...this.#lines(highest, step, up));
    for (const [row, { of }] of this.#result.entries()) {
      this.#svg.append(...this.#bars(shares[row], of, row, up));
    }
  }

  #legend() {
    const group = drawn("g", { class: "legend" });
    let left = LEFT;
    for (const { of, title } of this.#result) {
      group.append(
        drawn("rect", { x: left, y: 1, width: 10, height: 10, class: of }),
        drawn("text", { x: left + 16, y: 10 }, title),
      );
      left += 16 + 8 * title.length;
    }
    return group;
  }

  #lines(highest, step, up) {
    const made = [];
    for (let tick = 0; tick <= highest * 100; tick += step) {
      const y = up(tick / 100);
      const line = { x1: LEFT, x2: this.#width - RIGHT, y1: y, y2: y, class: "rule" };
      made.push(
        drawn("line", line),
        drawn("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, `${tick} %`),
      );
    }
    return made;
  }

  #bars(shares, of, row, up) {
    const room = (this.#width - LEFT - RIGHT) / 10;
    const width = (room * 0.7) / this.#result.length;
    return shares.flatMap((share, digit) => {
      const x = LEFT + room * (digit + 0.15) + row * width;
      const y = up(share);
      const bar = drawn("rect", { x, y, width, height: TOP + HEIGHT - y, class: of });
      if (row > 0) {
        return [bar];
      }
      const middle = { x: LEFT + room * (digit + 0.5), y: TOP + HEIGHT + 16 };
      return [bar, drawn("text", { ...middle, "text-anchor": "middle" }, String(digit))];
    });
  }
}
