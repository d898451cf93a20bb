/** Look up any term: digits, residue or summary, and the progress while a large one is computed. */

import { copyButton } from "./clipboard.js";
import { button, element } from "./dom.js";
import { Frequencies } from "./frequencies.js";
import { Work, complain } from "./notice.js";
import { firstGroup, grouped, groups, read, requireNumber } from "./numbers.js";
import { programs } from "./programs.js";
import { Lost, Problem, ask, isAborted, retryAfter, watch } from "./service.js";
import { END, TermView, parts } from "./term.js";
import { fromQuery, path, query } from "./wanted.js";

// How many digits of a long term are requested at first, besides its end.
const FIRST = 1024;

// Longer counts are shortened, because they would fill the page.
const LONGEST_COUNT = 400;

// Frequencies of fewer digits mean nothing.
const FEWEST_COUNTED = 100n;

// Programs that request a longer term wait for its computation.
const WAITED_FOR = 100_000n;

const TEXT = { Accept: "text/plain" };

const at = (id) => document.getElementById(id);
const form = at("explorer");
const fields = form.elements;
const view = new TermView(at("found-term"), (error) => report(error));
const frequencies = new Frequencies(at("frequencies"));
const ways = { digits: showDigits, summary: showSummary, residue: showResidue };
let shown = null; // The query and the programs of what is shown.
let address = location.search; // The query of the page's address.
let stop = new AbortController();

// --- What is wanted ------------------------------------------------------------------------------

requireNumber(fields.n, "a whole number, such as 100, −8, 1,000,000, 1e6 or 10^6", () => true);
requireNumber(fields.modulo, "a whole number, at least 1");

/** Show only the field that belongs to the chosen kind. */
function showFields() {
  for (const label of form.querySelectorAll("[data-of]")) {
    label.hidden = label.dataset.of !== fields.what.value;
    // The browser must not check a field that is hidden.
    label.querySelector("input").disabled = label.hidden;
  }
}

form.addEventListener("change", showFields);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  find({
    n: read(fields.n.value),
    what: fields.what.value,
    base: read(fields.base.value),
    modulo: read(fields.modulo.value),
  });
});

/** Show the term that the address of the page names, if any. */
function followLink() {
  address = location.search;
  const wanted = fromQuery(address);
  if (!wanted) {
    clear();
    return;
  }
  for (const [name, value] of Object.entries(wanted)) {
    fields[name].value = value;
    fields[name].dispatchEvent?.(new Event("input"));
  }
  showFields();
  if (form.checkValidity()) {
    find(wanted, "replaceState");
  } else {
    clear();
    complain(at("refusal"), "This link names no term", "Write the index below, and press Show.");
  }
}

/** Put what is shown into the address of the page, for bookmarks and the browser's history. */
function putIntoAddress(wanted, how) {
  const search = query(wanted) ?? "";
  if (search !== address) {
    address = search;
    history[how](null, "", location.pathname + search + location.hash);
  }
}

// --- Finding it ----------------------------------------------------------------------------------

function clear() {
  stop.abort();
  stop = new AbortController();
  at("refusal").replaceChildren();
  at("found").hidden = true;
  at("found-summary").hidden = true;
  view.clear();
  frequencies.clear();
}

async function find(wanted, how = "pushState") {
  clear();
  putIntoAddress(wanted, how);
  try {
    await ways[wanted.what](wanted, stop.signal);
  } catch (error) {
    report(error, wanted);
  }
}

function report(error, wanted) {
  if (error instanceof Problem) {
    const summary = () => {
      fields.what.value = "summary";
      showFields();
      find({ ...wanted, what: "summary" });
    };
    const instead = error.related ? [button("Show its summary", summary)] : [];
    complain(at("refusal"), error.title, error.detail, ...instead);
  } else if (error instanceof Lost) {
    complain(at("refusal"), "The service does not answer", "Nothing has changed: try again.");
  } else if (!isAborted(error)) {
    throw error;
  }
}

function found(sentence, wanted = null, waits = false) {
  at("found-said").textContent = sentence;
  at("found").hidden = false;
  at("programs").hidden = wanted === null;
  at("found-tools").hidden = wanted === null || query(wanted) === null;
  if (wanted) {
    shown = { query: query(wanted), programs: programs(location.origin, wanted, waits) };
    showProgram();
  }
}

async function showDigits(wanted, signal) {
  const { n, base } = wanted;
  const name = `F(${grouped(n)})`;
  const get = (more, read) => {
    const headers = { ...TEXT, ...more };
    return computed(name, () => ask("GET", path(wanted), { headers, read, signal }), signal);
  };
  const range = async (bytes) => get({ Range: `bytes=${bytes}` });
  const first = await range(`0-${FIRST - 1}`);
  const length = BigInt(first.headers.get("Content-Range").split("/")[1]);
  const last = length > FIRST ? await range(`-${END}`) : first;
  const sign = first.body.startsWith("-") ? 1 : 0;
  const digits = length - BigInt(sign);
  view.show({
    ...parts(name, first.body),
    digits,
    tail: last.body.slice(-END),
    part: async (from, end) => (await range(`${sign + from}-${sign + end - 1}`)).body,
    whole: async () => (await get({})).body,
    file: async () => (await get({}, "blob")).body,
    filename: `fibonacci-${n.slice(0, 30)}${base === "10" ? "" : `-base-${base}`}.txt`,
  });
  frequencies.clear(base === "10" && digits > FEWEST_COUNTED ? path(wanted) : null);
  const inBase = base === "10" ? "" : ` in base ${base}`;
  const count = `${grouped(digits.toString())} digit${digits === 1n ? "" : "s"}`;
  found(`${name}${inBase}, ${count}`, wanted, digits > WAITED_FOR);
}

/** Repeat the request until its term is computed. */
async function computed(name, request, signal) {
  let work;
  try {
    for (;;) {
      const answer = await request();
      if (answer.status !== 202) {
        return answer;
      }
      const job = answer.headers.get("Location");
      work ??= new Work(at("computation"), name, "Cancel", () => cancel(job));
      await watch(job, retryAfter(answer.headers), (document) => work.show(document), signal);
    }
  } finally {
    work?.end();
  }
}

async function cancel(job) {
  stop.abort();
  try {
    await ask("DELETE", job);
  } catch (error) {
    // The computation has ended, or another client has cancelled it.
    if (!(error instanceof Problem && error.status === 404)) {
      report(error);
      return;
    }
  }
  found("Cancelled.");
}

async function showResidue(wanted, signal) {
  const { n, modulo } = wanted;
  const { body } = await ask("GET", path(wanted), { headers: TEXT, signal });
  const name = `F(${grouped(n)}) mod ${grouped(modulo)}`;
  view.show({ ...parts(name, body), filename: `fibonacci-${n.slice(0, 30)}-residue.txt` });
  found(name, wanted);
}

async function showSummary(wanted, signal) {
  const summary = (await ask("GET", path(wanted), { read: "json", signal })).body;
  const leading = summary.leading.replace("-", "");
  const sign = summary.leading.startsWith("-") ? ["−"] : [];
  const isShortened = BigInt(summary.digits) > BigInt(leading.length);
  const facts = [
    ["Digits", "", grouped(summary.digits, LONGEST_COUNT)],
    ["First digits", "first", ...sign, ...groups(leading, firstGroup(summary.digits))],
    ["Last digits", "last", ...groups(summary.trailing, firstGroup(summary.trailing.length))],
    ["Bytes in binary", "", grouped(summary.bytes, LONGEST_COUNT)],
  ];
  at("found-summary").replaceChildren(
    ...facts.map(([name, end, ...value]) => {
      const className = `digits ${isShortened ? end : ""}`;
      return element(
        "div",
        {},
        element("dt", {}, name),
        element("dd", { className }, ...value),
      );
    }),
  );
  at("found-summary").hidden = false;
  found(`F(${grouped(wanted.n)})`, wanted);
}

// --- Programs and link ---------------------------------------------------------------------------

function showProgram() {
  at("program").textContent = shown.programs[at("languages").elements.language.value];
}

at("languages").addEventListener("change", showProgram);
at("program").after(copyButton("Copy program", async () => at("program").textContent));
// Without the fragment, which is the id of a private sequence.
const link = async () => location.origin + location.pathname + shown.query;
at("found-tools").append(copyButton("Copy link", link));

addEventListener("popstate", () => {
  if (location.search !== address) {
    followLink();
  }
});
followLink();
