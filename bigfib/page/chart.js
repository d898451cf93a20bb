/**
 * A chart that grows as one steps: digits above, milliseconds below, against the position.
 *
 * Two charts with one axis rather than one with two: no line has to be told from another by its
 * colour. Values are BigInt, times microseconds; only their ratios become Numbers.
 */

import { element } from "./notice.js";
import { grouped } from "./term.js";

/** Most steps that are kept. */
const KEPT = 300;

const IN_TABLE = 10;

const PANELS = [
  { of: "digits", title: "Digits", write: (value) => grouped(value.toString()) },
  { of: "micros", title: "Milliseconds", write: milliseconds },
];

const PANEL_HEIGHT = 112;
const LEFT = 64;
const RIGHT = 12;
const TOP = 46;
const BOTTOM = 24;

/** What a digit of a label takes at most, and what is between two labels at least. */
const DIGIT = 7;
const GAP = 24;

const MOST_TICKS = 5;

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
  #empty = element("p", { className: "empty" }, "Step, and it begins here.");
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
      "aria-label": this.#describe(),
    })) {
      this.#svg.setAttribute(name, value);
    }
    const positions = this.#steps.map((step) => step.position);
    const [low, high] = extremes(positions);
    const x = scale(low, high, LEFT, this.#width - RIGHT);
    const axis = this.#axis(low, high, x, height - BOTTOM);
    const top = (row) => TOP + row * (PANEL_HEIGHT + TOP);
    const panels = PANELS.map((panel, row) => this.#panel(panel, x, top(row)));
    this.#svg.replaceChildren(...panels, axis);
    for (const label of axis.children) {
      const { x: left, width } = label.getBBox();
      if (left + width > this.#width) {
        label.setAttribute("x", this.#width);
        label.setAttribute("text-anchor", "end");
      }
    }
  }

  #describe() {
    const last = this.#steps.at(-1);
    const [low, high] = extremes(this.#steps.map((step) => step.position)).map(String);
    return (
      `Digits and milliseconds of ${this.#steps.length} steps, positions ${grouped(low)} to ` +
      `${grouped(high)}; the last one has ${grouped(last.digits.toString())} digits and took ` +
      `${milliseconds(last.micros)} ms.`
    );
  }

  #axis(low, high, x, y) {
    const group = drawn("g", { class: "axis" });
    const widest = DIGIT * grouped(high.toString()).length + GAP;
    const room = Math.floor((this.#width - LEFT - RIGHT) / widest);
    const step = niceStep(high - low, Math.min(Math.max(room, 1), MOST_TICKS));
    for (let tick = ((low + step - 1n) / step) * step; tick <= high; tick += step) {
      const label = drawn("text", { x: x(tick), y: y + 16, "text-anchor": "middle" });
      label.textContent = grouped(tick.toString());
      group.append(label);
    }
    return group;
  }

  #panel({ of, title, write }, x, top) {
    const bottom = top + PANEL_HEIGHT;
    const group = drawn("g", { class: of });
    const heading = drawn("text", { x: 0, y: top - 20, class: "title" });
    heading.textContent = title;
    group.append(heading);

    const highest = extremes(this.#steps.map((step) => step[of]))[1];
    const step = niceStep(highest, 3);
    const ceiling = ((highest + step - 1n) / step || 1n) * step;
    const y = scale(0n, ceiling, bottom - 2, top);
    for (let tick = 0n; tick <= ceiling; tick += step) {
      const at = y(tick);
      const label = drawn("text", { x: LEFT - 10, y: at + 4, "text-anchor": "end" });
      label.textContent = write(tick);
      const line = { x1: LEFT, x2: this.#width - RIGHT, y1: at, y2: at, class: "rule" };
      group.append(drawn("line", line), label);
    }

    const places = this.#steps.map((one) => [x(one.position), y(one[of]), one]);
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
      const hint = drawn("title", {});
      const value = `${write(one[of])} ${title.toLowerCase()}`;
      hint.textContent = `${grouped(one.position.toString())}: ${value}`;
      mark.append(hint);
      group.append(mark);
    }
    return group;
  }
}

function drawn(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) {
    made.setAttribute(attribute, value);
  }
  return made;
}

function extremes(values) {
  return values.reduce(
    ([low, high], value) => [value < low ? value : low, value > high ? value : high],
    [values[0], values[0]],
  );
}

/** Return what maps low .. high to from .. to. */
function scale(low, high, from, to) {
  const span = high - low || 1n;
  return (value) => {
    const share = Number(((value - low) * 10_000n) / span) / 10_000;
    return Math.round((from + share * (to - from)) * 10) / 10;
  };
}

/** Return 1, 2 or 5 times a power of ten, of which `count` or a few less make up `span`. */
function niceStep(span, count) {
  const rough = (span + BigInt(count) - 1n) / BigInt(count) || 1n;
  const power = 10n ** BigInt(rough.toString().length - 1);
  return [1n, 2n, 5n, 10n].map((times) => times * power).find((step) => step >= rough);
}
