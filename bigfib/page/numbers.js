/**
 * Whole numbers as people write and read them.
 *
 * They are strings here, because they have no ceiling, and Number has one. All are grouped alike: by
 * threes, counted from the end, with commas. Where a number is long, the commas are drawn by the
 * style sheet, so that what is selected and copied has digits only.
 */

import { element } from "./dom.js";

const GROUP = 3;

/** Most digits of a number that is written as 10^6; the service takes no longer index. */
const LONGEST = 10_000;

const WRITTEN = /^(-?)(?:(\d+)|(\d+)(?:\.(\d*))?e\+?(\d{1,5})|(\d+)\^(\d{1,5}))$/i;

/** Return a number with commas; one of more than `longest` digits, shortened. */
export function grouped(number, longest = 30) {
  if (number.length > longest) {
    return `${number.slice(0, 12)}…${number.slice(-6)}`;
  }
  return number.replace("-", "−").replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Return how many digits the first group of a number has that has `count` digits. */
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
  // Of a base of one digit too much is computed; what is longer then is refused as well.
  if (base.length * power > 4 * LONGEST) {
    return null;
  }
  const digits = (BigInt(base) ** BigInt(power)).toString();
  return digits.length > LONGEST ? null : digits;
}

/** Have the browser refuse what `read` does not read in a field, and name an `example`. */
export function requireNumber(field, example, isAllowed = (number) => !number.startsWith("-")) {
  const check = () => {
    const number = read(field.value);
    const isRight = number !== null && isAllowed(number);
    field.setCustomValidity(isRight || field.value === "" ? "" : `Write ${example}.`);
  };
  field.addEventListener("input", check);
  check();
}
