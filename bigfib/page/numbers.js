/**
 * Whole numbers as people write and read them.
 *
 * They are strings here, because JavaScript's Number is too small. All are grouped in the same way: by
 * threes from the end, with commas. In a long number the style sheet draws the commas, so that text
 * that is selected and copied has only digits.
 */

import { element } from "./dom.js";

const GROUP = 3;

/** Maximum digits of a number written as 1e6 or 10^6; the service refuses longer indices anyway. */
const LONGEST = 10_000;

const WRITTEN = /^(-?)(?:(\d+)|(\d+)(?:\.(\d*))?e\+?(\d{1,5})|(\d+)\^(\d{1,5}))$/i;

/** Return a number with commas; shorten it if it has more than `longest` digits. */
export function grouped(number, longest = 30) {
  if (number.length > longest) {
    return `${number.slice(0, 12)}…${number.slice(-6)}`;
  }
  return number.replace("-", "−").replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Return how many digits are in the first group of a number of `count` digits. */
export const firstGroup = (count) => Number(BigInt(count) % BigInt(GROUP)) || GROUP;

/** Return digits in groups, the first of which has `first` digits. */
export function groups(digits, first) {
  const all = [];
  for (let at = 0, end = first; at < digits.length; at = end, end += GROUP) {
    all.push(element("span", {}, digits.slice(at, end)));
  }
  return all;
}

/**
 * Read a whole number: 1000000, 1,000,000, 1_000_000, 1 000 000, 1e6, 1.5e6, 10^6.
 *
 * @returns its digits, after a minus sign if it is negative; null if it is not a whole number.
 */
export function read(written) {
  const found = WRITTEN.exec(written.replace(/[\s,_]/g, "").replace("−", "-"));
  if (!found) {
    return null;
  }
  const [, sign, plain, mantissa, fraction, exponent, base, power] = found;
  const digits =
    plain ??
    (base === undefined
      ? shifted(mantissa, fraction ?? "", Number(exponent))
      : raised(base, Number(power)));
  return digits && (sign + digits).replace(/^(-?)0+(?=\d)/, "$1").replace(/^-0$/, "0");
}

function shifted(mantissa, fraction, exponent) {
  const zeros = exponent - fraction.replace(/0+$/, "").length;
  if (zeros < 0 || mantissa.length + exponent > LONGEST) {
    return null;
  }
  return mantissa + fraction.padEnd(exponent, "0").slice(0, exponent);
}

function raised(base, power) {
  // The product is up to 3.3 times the length, for base 2. So allow four times the length here,
  // and check the result.
  if (base.length * power > 4 * LONGEST) {
    return null;
  }
  const digits = (BigInt(base) ** BigInt(power)).toString();
  return digits.length > LONGEST ? null : digits;
}

/** Let the browser refuse text in a field that `read` cannot read, and show an `example`. */
export function requireNumber(field, example, isAllowed = (number) => !number.startsWith("-")) {
  const check = () => {
    const number = read(field.value);
    const isRight = number !== null && isAllowed(number);
    field.setCustomValidity(isRight || field.value === "" ? "" : `Write ${example}.`);
  };
  field.addEventListener("input", check);
  check();
}
