/**
 * A chart that grows with each step: digits above, milliseconds below, against the position.
 *
 * These are two charts with one axis, not one with two, so that no line is known by its colour only.
 * Values are BigInt, times are in microseconds; only ratios become Numbers.
 */

import { drawn, element } from "./dom.js";
import { grouped } from "./numbers.js";
import { extremes, scaleFromZero, scaleOf } from "./scales.js";

/** Maximum number of steps shown. */
const KEPT = 300;

const IN_TABLE = 10;

// `unit` is the first value after 0 on a logarithmic axis.
const PANELS = [
  { of: "digits", title: "Digits", unit: 1n, write: (value) => grouped(value.toString()) },
  { of: "micros", title: "Milliseconds", unit: 1000n, write: milliseconds },
];

const PANEL_HEIGHT = 112;
const LEFT = 64;
const RIGHT = 12;
const TOP = 46;
const BOTTOM = 44;

/** The width of a digit in a label, and the least distance of two labels. */
const DIGIT = 7;
const GAP = 24;

const MOST_TICKS = 5;
const MOST_LINES = 3;

export function milliseconds(micros) {
  const ms = Number(micros) / 1000;
  if (Number.isInteger(ms)) {
    return grouped(String(ms));
  }
  return ms < 100 ? ms.toFixed(1) : ms.toFixed(0);
}

export class Chart {
  #steps = [];
  #width = 0;
  #svg = drawn("svg", { role: "img" });
  #empty = element("p", { className: "empty" }, "Press Next: each step becomes a point here.");
  #rows = element("tbody");
  #table;

  constructor(figure) {
    const head = element("tr");
    for (const name of ["Position", "Digits", "Milliseconds"]) {
      head.append(element("th", { scope: "col" }, name));
    }
    this.#table = element(
      "details",
      { hidden: true },
      element("summary", {}, "The last steps in numbers"),
      element("table", {}, element("thead", {}, head), this.#rows),
    );
    this.#svg.toggleAttribute("hidden", true);
    figure.append(this.#empty, this.#svg, this.#table);
    new ResizeObserver(([entry]) => {
      this.#width = Math.floor(entry.contentRect.width);
      this.#draw();
    }).observe(figure);
  }

  /** Add a step: position and digits as the service writes them, and the milliseconds it took. */
  add(position, digits, ms) {
    this.#steps.push({
      position: BigInt(position),
      digits: BigInt(digits),
      micros: BigInt(Math.round(ms * 1000)),
    });
    this.#steps.splice(0, this.#steps.length - KEPT);
    this.#tabulate();
    this.#draw();
  }

  clear() {
    this.#steps = [];
    this.#svg.toggleAttribute("hidden", true);
    this.#table.hidden = true;
    this.#empty.hidden = false;
  }

  #tabulate() {
    const rows = this.#steps.slice(-IN_TABLE).map((step) => {
      const row = element("tr");
      const cells = [grouped(step.position.toString())];
      cells.push(...PANELS.map((panel) => panel.write(step[panel.of])));
      row.append(...cells.map((text) => element("td", {}, text)));
      return row;
    });
    this.#rows.replaceChildren(...rows.reverse());
  }

  #draw() {
    if (this.#steps.length === 0 || this.#width === 0) {
      return;
    }
    this.#empty.hidden = true;
    this.#table.hidden = false;
    this.#svg.toggleAttribute("hidden", false);
    const height = TOP * 2 + PANEL_HEIGHT * 2 + BOTTOM;
    for (const [name, value] of Object.entries({
      width: this.#width,
      height,
      viewBox: `0 0 ${this.#width} ${height}`,
    })) {
      this.#svg.setAttribute(name, value);
    }
    const positions = this.#steps.map((step) => step.position);
    const x = scaleOf(positions, 1n, LEFT, this.#width - RIGHT);
    const axis = this.#axis(x, height - BOTTOM);
    const top = (row) => TOP + row * (PANEL_HEIGHT + TOP);
    const panels = PANELS.map((panel, row) => this.#panel(panel, x, top(row)));
    this.#svg.replaceChildren(...panels, axis);
    this.#svg.setAttribute("aria-label", this.#describe());
    for (const label of axis.querySelectorAll(".tick")) {
      const { x: left, width } = label.getBBox();
      if (left + width > this.#width) {
        label.setAttribute("x", this.#width);
        label.setAttribute("text-anchor", "end");
      }
    }
  }

  #describe() {
    const last = this.#steps.at(-1);
    const titles = [...this.#svg.querySelectorAll(".title")].map((title) => title.textContent);
    const [low, high] = extremes(this.#steps.map((step) => step.position)).map(String);
    return (
      `${titles.join(", ")}: ${this.#steps.length} steps, positions ${grouped(low)} to ` +
      `${grouped(high)}; the last one has ${grouped(last.digits.toString())} digits and took ` +
      `${milliseconds(last.micros)} ms.`
    );
  }

  #axis(x, y) {
    const group = drawn("g", { class: "axis" });
    const widest = DIGIT * grouped(x.high.toString()).length + GAP;
    const room = Math.floor((this.#width - LEFT - RIGHT) / widest);
    for (const tick of x.ticks(Math.min(Math.max(room, 1), MOST_TICKS))) {
      const place = { x: x.at(tick), y: y + 16, "text-anchor": "middle", class: "tick" };
      group.append(drawn("text", place, grouped(tick.toString())));
    }
    const middle = { x: (LEFT + this.#width - RIGHT) / 2, y: y + 38, "text-anchor": "middle" };
    group.append(drawn("text", { ...middle, class: "title" }, `Position${x.remark}`));
    return group;
  }

  #panel({ of, title, unit, write }, x, top) {
    const bottom = top + PANEL_HEIGHT;
    const group = drawn("g", { class: of });
    const values = this.#steps.map((step) => step[of]);
    const y = scaleFromZero(values, unit, bottom - 2, top, MOST_LINES);
    const heading = { x: 0, y: top - 20, class: "title" };
    group.append(drawn("text", heading, `${title}${y.remark}`));
    for (const tick of y.ticks(MOST_LINES)) {
      const line = { x1: LEFT, x2: this.#width - RIGHT, y1: y.at(tick), y2: y.at(tick) };
      const label = { x: LEFT - 10, y: y.at(tick) + 4, "text-anchor": "end" };
      group.append(drawn("line", { ...line, class: "rule" }), drawn("text", label, write(tick)));
    }

    const places = this.#steps.map((one) => [x.at(one.position), y.at(one[of]), one]);
    if (of === "digits") {
      const inOrder = places.toSorted(([left], [right]) => left - right);
      const points = inOrder.map(([left, up]) => `${left},${up}`).join(" ");
      group.append(drawn("polyline", { points }));
    }
    for (const [index, [left, up, one]] of places.entries()) {
      if (of === "micros") {
        const stem = { x1: left, x2: left, y1: bottom - 2, y2: up, class: "stem" };
        group.append(drawn("line", stem));
      }
      const mark =
        of === "digits"
          ? drawn("circle", { cx: left, cy: up, r: 3 })
          : drawn("path", { d: `M${left} ${up - 4}l4 4l-4 4l-4-4z` });
      mark.classList.toggle("last", index === places.length - 1);
      const value = `${write(one[of])} ${title.toLowerCase()}`;
      mark.append(drawn("title", {}, `${grouped(one.position.toString())}: ${value}`));
      group.append(mark);
    }
    return group;
  }
}
