/**
 * Which sequence the page steps: the shared one, or a private one.
 *
 * The fragment of the page's address names a private sequence. So it can be bookmarked and opened on
 * another device, and is sent neither to servers nor to their logs. The browser also remembers the
 * one that was created here, so that "Private" opens it again.
 */

export const SHARED = "shared";

const REMEMBERED = "bigfib.own";

let kept = null; // As long as the page is open.

/** Return the id that the address of the page names. */
export const named = () => /^#([0-9a-f]{32})$/.exec(location.hash)?.[1] ?? SHARED;

// A browser may be set to store nothing; then the page remembers it, and the address.
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

/** Return an id that nobody can guess, for a sequence to be created under. */
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
