/** Show a term; a long one is shortened, with a button that shows all digits. */

import { copyButton } from "./clipboard.js";
import { Digits } from "./digits.js";
import { button, element } from "./dom.js";
import { firstGroup, grouped, groups } from "./numbers.js";

/** Most digits of a term that is not shortened. */
const WHOLE = 132;

/** How many digits are shown at either end of a longer term. */
export const END = 60;

/** Return the argument of `TermView.show` for a term that is available as text. */
export function parts(name, text) {
  const digits = text.replace("-", "");
  return {
    name,
    sign: text.startsWith("-") ? "−" : "",
    digits: digits.length,
    head: digits.slice(0, WHOLE),
    tail: digits.slice(-END),
    part: async (from, end) => digits.slice(from, end),
    whole: async () => text,
    file: async () => new Blob([text], { type: "text/plain" }),
  };
}

export class TermView {
  #place;
  #sign = element("span", { className: "sign", ariaHidden: "true" });
  // A screen reader would read groups as many small numbers; it gets the sentence of `show`.
  #head = element("span", { className: "digits", ariaHidden: "true" });
  #tail = element("span", { className: "digits", ariaHidden: "true" });
  #more = button("", () => this.#toggle(), "more");
  #digits;
  #save = button("Download", () => this.#download(), "plain save");
  #failed;
  #term;

  /**
   * @param place where to show terms
   * @param failed is called with the error if digits cannot be loaded
   */
  constructor(place, failed) {
    this.#place = place;
    this.#failed = failed;
    const all = element("div", { id: `${place.id}-all`, className: "all" });
    this.#digits = new Digits(all, failed);
    this.#more.setAttribute("aria-controls", all.id);
    const copy = copyButton("Copy digits", () => this.#term.whole(), failed);
    this.clear();
    const parts = [this.#sign, this.#head, this.#more, this.#tail];
    place.append(
      element("div", { className: "short" }, ...parts),
      element("div", { className: "tools" }, copy, this.#save),
      all,
    );
  }

  /**
   * Show a term.
   *
   * @param term name, sign, number of digits, `head` (the first `WHOLE` digits) and `tail` (the last
   *   `END`); `part`, `whole` and `file`, functions that load some digits, and the term as text and
   *   as Blob; `filename`.
   * @returns the term in a sentence, to be read aloud.
   */
  show(term) {
    this.#term = term;
    this.#place.hidden = false;
    this.#sign.textContent = term.sign;
    this.#save.ariaLabel = `Download ${term.name}`;
    const count = BigInt(term.digits);
    this.#place.dataset.size = size(count);
    const first = firstGroup(count);
    if (count <= BigInt(WHOLE)) {
      this.#head.replaceChildren(...groups(term.head, first));
      this.#tail.replaceChildren();
      this.#more.hidden = true;
      this.#close();
      return `${term.name} = ${term.sign}${term.head}`;
    }
    const head = END + (first % 3);
    this.#head.replaceChildren(...groups(term.head.slice(0, head), first));
    this.#tail.replaceChildren(...groups(term.tail, 3));
    this.#more.textContent = `${grouped((count - BigInt(head + END)).toString())} more digits`;
    this.#more.hidden = false;
    if (!this.#digits.place.hidden) {
      this.#digits.open(term);
    }
    const [begin, end] = [term.head.slice(0, 12), term.tail.slice(-12)];
    return `${term.name} has ${grouped(count.toString())} digits: ${term.sign}${begin} … ${end}`;
  }

  clear() {
    this.#close();
    this.#place.hidden = true;
  }

  #toggle() {
    if (this.#digits.place.hidden) {
      this.#digits.open(this.#term);
      this.#more.setAttribute("aria-expanded", "true");
    } else {
      this.#close();
    }
  }

  #close() {
    this.#digits.close();
    this.#more.setAttribute("aria-expanded", "false");
  }

  async #download() {
    this.#save.setAttribute("aria-busy", "true");
    try {
      // A link cannot request text/plain. The browser keeps a long Blob on disk.
      const address = URL.createObjectURL(await this.#term.file());
      element("a", { href: address, download: this.#term.filename }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch (error) {
      this.#failed(error);
    } finally {
      this.#save.removeAttribute("aria-busy");
    }
  }
}

const size = (count) =>
  count <= 15n ? "large" : count <= 45n ? "medium" : count <= BigInt(WHOLE) ? "small" : "long";
