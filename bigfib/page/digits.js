/**
 * All digits of a term, a page at a time, from any place in it.
 *
 * A browser takes seconds to lay out millions of digits. A page has ten thousand, which are requested
 * when the page is shown.
 */

import { button, element } from "./dom.js";
import { firstGroup, grouped, groups, read, requireNumber } from "./numbers.js";

// A multiple of three, so that no group is divided.
const PARAGRAPH = 999;
const PAGE = 10 * PARAGRAPH;

export class Digits {
  #failed;
  #term;
  #page = 0;
  #generation = 0;
  #text = element("div", { className: "whole", tabIndex: 0 });
  #earlier = button("Earlier", () => this.#moveBy(-1), "small");
  #later = button("Later", () => this.#moveBy(1), "small");
  #range = element("span", { className: "range" });
  #field = element("input", { name: "digit", required: true, inputMode: "numeric" });
  #answer = element("output");
  #pager = element("div", { className: "pager" }, this.#earlier, this.#later, this.#range);

  /**
   * @param place where to show the digits
   * @param failed is called with the error if digits cannot be loaded
   */
  constructor(place, failed) {
    this.place = place;
    this.#failed = failed;
    // Not a region: the same term may be open twice, and names of landmarks must differ.
    this.#text.setAttribute("role", "group");
    const form = element(
      "form",
      { className: "to-digit", autocomplete: "off" },
      element("label", {}, "Go to digit ", this.#field),
      element("button", { className: "small" }, "Find"),
      this.#answer,
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#find(Number(read(this.#field.value)));
    });
    const isThere = (number) => !number.startsWith("-") && number !== "0" && this.#has(number);
    requireNumber(this.#field, "a whole number, from 1 to the number of digits", isThere);
    place.append(form, this.#pager, this.#text);
    place.hidden = true;
  }

  /** Show a term's digits, at the page that is shown now; see `TermView.show`. */
  open(term) {
    this.#term = term;
    this.place.hidden = false;
    this.#text.ariaLabel = `All digits of ${term.name}`;
    this.#answer.textContent = "";
    // The number in the field may be too large for this term.
    this.#field.dispatchEvent(new Event("input"));
    return this.#show(Math.min(this.#page, this.#pageOf(this.#count - 1)));
  }

  close() {
    this.#generation += 1;
    this.#page = 0;
    this.place.hidden = true;
    this.#text.replaceChildren();
  }

  get #count() {
    return Number(this.#term.digits);
  }

  #has(number) {
    return BigInt(number) <= BigInt(this.#term.digits);
  }

  /** Return where a page begins; the first one also has the digits before the first whole group. */
  #start(page) {
    return page === 0 ? 0 : (this.#count % 3) + page * PAGE;
  }

  #pageOf(index) {
    return Math.max(Math.floor((index - (this.#count % 3)) / PAGE), 0);
  }

  #moveBy(by) {
    this.#answer.textContent = "";
    this.#show(this.#page + by);
  }

  async #find(digit) {
    this.#answer.textContent = "";
    const mark = await this.#show(this.#pageOf(digit - 1), digit - 1);
    if (mark) {
      this.#answer.textContent = `Digit ${grouped(String(digit))} is ${mark.textContent}.`;
      mark.scrollIntoView({ block: "nearest" });
    }
  }

  /** Show a page, and return the mark of the digit with this index, if there is one. */
  async #show(page, index = -1) {
    this.#generation += 1;
    const generation = this.#generation;
    this.#page = page;
    const from = this.#start(page);
    const end = Math.min(this.#start(page + 1), this.#count);
    this.#text.setAttribute("aria-busy", "true");
    let text;
    try {
      text = await this.#term.part(from, end);
    } catch (error) {
      if (generation === this.#generation) {
        this.#failed(error);
      }
      return null;
    }
    if (generation !== this.#generation) {
      return null;
    }
    this.#text.removeAttribute("aria-busy");
    this.#text.replaceChildren(...paragraphs(text, from, this.#count));
    this.#text.scrollTop = 0;
    this.#pager.hidden = from === 0 && end === this.#count;
    this.#earlier.disabled = from === 0;
    this.#later.disabled = end === this.#count;
    const [first, last, all] = [from + 1, end, this.#count].map((n) => grouped(String(n)));
    this.#range.textContent = `Digits ${first} to ${last} of ${all}`;
    return index < 0 ? null : mark(this.#text, index - from);
  }
}

function paragraphs(text, from, count) {
  const made = [];
  let at = 0;
  while (at < text.length) {
    const first = from + at === 0 ? firstGroup(count) : 3;
    const end = at + (from + at === 0 ? (count % 3) + PARAGRAPH : PARAGRAPH);
    const paragraph = element("p", {}, ...groups(text.slice(at, end), first));
    paragraph.dataset.from = grouped(String(from + at + 1));
    made.push(paragraph);
    at = end;
  }
  return made;
}

/** Mark the digit with this index among those shown. */
function mark(place, index) {
  let left = index;
  for (const group of place.querySelectorAll("span")) {
    const digits = group.textContent;
    if (left < digits.length) {
      const marked = element("mark", {}, digits[left]);
      group.replaceChildren(digits.slice(0, left), marked, digits.slice(left + 1));
      return marked;
    }
    left -= digits.length;
  }
  return null;
}
