/**
 * Convert what the user wants to see of a term to its path in the API and to the page's address.
 *
 * That is `{n, what, base, modulo}`: `what` is "digits", "summary" or "residue", and the numbers are
 * strings.
 */

import { read } from "./numbers.js";

const DECIMAL = "10";

// Servers refuse longer addresses.
const LONGEST_LINK = 2000;

/** Return the path of the resource. */
export function path({ n, what, base, modulo }) {
  const term = `/api1/terms/${n}`;
  if (what === "summary") {
    return `${term}/summary`;
  }
  if (what === "residue") {
    return `${term}?modulo=${modulo}`;
  }
  return base === DECIMAL ? term : `${term}?base=${base}`;
}

/** Return the query of the page's address, or null if it would be too long. */
export function query({ n, what, base, modulo }) {
  const members = { n };
  if (what === "summary") {
    members.show = what;
  } else if (what === "residue") {
    members.modulo = modulo;
  } else if (base !== DECIMAL) {
    members.base = base;
  }
  const written = `?${new URLSearchParams(members)}`;
  return written.length > LONGEST_LINK ? null : written;
}

/** Read the query of the page's address; its numbers may be written as 1e6. Null without ``n``. */
export function fromQuery(written) {
  const given = new URLSearchParams(written);
  if (!given.has("n")) {
    return null;
  }
  const number = (name, otherwise) => {
    const value = given.get(name) ?? otherwise;
    return read(value) ?? value;
  };
  let what = given.get("show") === "summary" ? "summary" : "digits";
  if (given.has("modulo")) {
    what = "residue";
  }
  return {
    n: number("n"),
    what,
    base: number("base", DECIMAL),
    modulo: number("modulo", "1000000007"),
  };
}
