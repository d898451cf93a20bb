/**
 * A term on the page: in groups of three, a long one shortened, the whole of it a click away.
 *
 * A term may have millions of digits. As one paragraph that would take the browser seconds to lay
 * out; so the whole is many short ones, some of which are added in each frame, and the browser
 * lays out those that are looked at (`content-visibility` in page.css).
 */

import { button, element } from "./notice.js";

const GROUP = 3;

/** Longest term that is shown as it is. */
const WHOLE = 132;

/** How many digits of either end of a longer one are shown. */
export const END = 60;

const PARAGRAPH = 1000;
const PARAGRAPHS_A_FRAME = 50;

/** Return a number with commas; one of more than `longest` digits, shortened. */
export function grouped(number, longest = 30) {
  if (number.length > longest) {
    return `${number.slice(0, 12)}…${number.slice(-6)}`;
  }
  return number.replace("-", "−").replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Return the number that somebody has written with spaces, commas, zeros or a true minus. */
export const plain = (written) =>
  written
    .replace(/[\s,_]/g, "")
    .replace("−", "-")
    .replace(/^(-?)0+(?=\d)/, "$1")
    .replace(/^-0$/, "0");

/** Return the parts of a term that is at hand as a whole; see `TermView.show`. */
export function parts(name, text) {
  const digits = text.replace("-", "");
  return {
    name,
    sign: text.startsWith("-") ? "−" : "",
    digits: digits.length,
    head: digits.slice(0, WHOLE),
    tail: digits.slice(-END),
    whole: async () => text,
    file: async () => new Blob([text], { type: "text/plain" }),
  };
}

export class TermView {
  #place;
  #sign = element("span", { className: "sign", ariaHidden: "true" });
  // Read aloud, groups would be a heap of small numbers; the sentence that `show` returns is not.
  #head = element("span", { className: "digits", ariaHidden: "true" });
  #tail = element("span", { className: "digits", ariaHidden: "true" });
  #more = button("", () => this.#toggle(), "more");
  #whole = element("div", { className: "whole", tabIndex: 0, hidden: true });
  #save = button("Download", () => this.#download(), "plain save");
  #failed;
  #term;
  #generation = 0;

  /**
   * @param place where to show terms
   * @param failed is told the error if the whole of one cannot be had
   */
  constructor(place, failed) {
    this.#place = place;
    this.#failed = failed;
    this.#whole.id = `${place.id}-whole`;
    this.#whole.setAttribute("role", "region");
    this.#more.setAttribute("aria-controls", this.#whole.id);
    this.clear();
    const parts = [this.#sign, this.#head, this.#more, this.#tail];
    place.append(element("div", { className: "short" }, ...parts), this.#whole, this.#save);
  }

  /**
   * Show a term.
   *
   * @param term its name, sign, number of digits, first digits (all, if there are at most `WHOLE`),
   *   last `END` digits; `whole` and `file`, which get it as text and as Blob; `filename`.
   * @returns the term in a sentence, to be read aloud.
   */
  show(term) {
    this.#term = term;
    this.#place.hidden = false;
    this.#sign.textContent = term.sign;
    this.#whole.ariaLabel = `All digits of ${term.name}`;
    this.#save.ariaLabel = `Download ${term.name}`;
    const count = BigInt(term.digits);
    this.#place.dataset.size = size(count);
    // Groups are counted from the end.
    const first = Number(count % BigInt(GROUP));
    if (count <= BigInt(WHOLE)) {
      this.#head.replaceChildren(...groups(term.head, first));
      this.#tail.replaceChildren();
      this.#more.hidden = true;
      this.#close();
      return `${term.name} = ${term.sign}${term.head}`;
    }
    this.#head.replaceChildren(...groups(term.head.slice(0, END + first), first));
    this.#tail.replaceChildren(...groups(term.tail, 0));
    const left = count - BigInt(END + first + END);
    this.#more.textContent = `${grouped(left.toString())} more digits`;
    this.#more.hidden = false;
    if (!this.#whole.hidden) {
      this.#open();
    }
    const [begin, end] = [term.head.slice(0, 12), term.tail.slice(-12)];
    return `${term.name} has ${grouped(count.toString())} digits: ${term.sign}${begin} … ${end}`;
  }

  clear() {
    this.#close();
    this.#place.hidden = true;
  }

  #toggle() {
    if (this.#whole.hidden) {
      this.#open();
    } else {
      this.#close();
    }
  }

  #close() {
    this.#generation += 1;
    this.#whole.hidden = true;
    this.#whole.replaceChildren();
    this.#more.setAttribute("aria-expanded", "false");
  }

  async #open() {
    this.#generation += 1;
    const generation = this.#generation;
    this.#whole.replaceChildren();
    this.#whole.hidden = false;
    this.#whole.setAttribute("aria-busy", "true");
    this.#more.setAttribute("aria-expanded", "true");
    let text;
    try {
      text = await this.#term.whole();
    } catch (error) {
      this.#close();
      this.#failed(error);
      return;
    }
    let at = text.startsWith("-") ? 1 : 0;
    const sign = at;
    while (at < text.length) {
      if (generation !== this.#generation) {
        return;
      }
      const paragraphs = document.createDocumentFragment();
      for (let i = 0; i < PARAGRAPHS_A_FRAME && at < text.length; i += 1, at += PARAGRAPH) {
        const digits = text.slice(at, at + PARAGRAPH).replace(/(.{10})(?=.)/g, "$1 ");
        const paragraph = element("p", {}, digits);
        paragraph.dataset.from = grouped(String(at - sign + 1));
        paragraphs.append(paragraph);
      }
      this.#whole.append(paragraphs);
      await new Promise(requestAnimationFrame);
    }
    this.#whole.removeAttribute("aria-busy");
  }

  async #download() {
    this.#save.setAttribute("aria-busy", "true");
    try {
      // A link cannot say that it wants text/plain. The browser keeps a long Blob on its disk.
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

/** Return digits in groups, the first of which has `first` digits if that is not 0. */
function groups(digits, first) {
  const all = [];
  for (let at = 0, end = first || GROUP; at < digits.length; at = end, end += GROUP) {
    all.push(element("span", {}, digits.slice(at, end)));
  }
  return all;
}
