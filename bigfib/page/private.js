/**
 * Which sequence the page steps: the shared one, or a private one.
 *
 * The fragment of the page's address is the id of a private sequence. So it can be bookmarked and
 * opened on another device, and browsers do not send it with requests for the page. The browser also
 * remembers the sequence that was created here, so that "Private" opens it again.
 */

export const SHARED = "shared";

const REMEMBERED = "bigfib.own";

let kept = null; // As long as the page is open.

/** Return the id in the address of the page. */
export const named = () => /^#([0-9a-f]{32})$/.exec(location.hash)?.[1] ?? SHARED;

// If the browser is set to store nothing, the page remembers the id as long as it is open.
export function remembered() {
  try {
    return localStorage.getItem(REMEMBERED) ?? kept;
  } catch {
    return kept;
  }
}

export function remember(id) {
  kept = id;
  try {
    localStorage.setItem(REMEMBERED, id);
  } catch {
    // See above.
  }
}

/** Return an id for a new sequence, which nobody can guess. */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function forget(id) {
  if (remembered() !== id) {
    return;
  }
  kept = null;
  try {
    localStorage.removeItem(REMEMBERED);
  } catch {
    // See above.
  }
}
