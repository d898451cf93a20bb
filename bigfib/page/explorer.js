/** Any term: its digits, its residue, its summary; of a huge one, how far its computation is. */

import { Work, button, complain, element } from "./notice.js";
import { Lost, Problem, ask, isAborted, retryAfter, watch } from "./service.js";
import { END, TermView, grouped, parts, plain } from "./term.js";

// Of a long term this much is got at first, and the end.
const FIRST = 1024;

// Counts are shown as they are, but for those that fill the page themselves.
const LONGEST_COUNT = 400;

const TEXT = { Accept: "text/plain" };

const at = (id) => document.getElementById(id);
const form = at("explorer");
const view = new TermView(at("found-term"), (error) => report(error));
let stop = new AbortController();

form.addEventListener("change", () => {
  for (const label of form.querySelectorAll("[data-of]")) {
    label.hidden = label.dataset.of !== form.elements.what.value;
    // What cannot be seen need not be right.
    label.querySelector("input").disabled = label.hidden;
  }
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  find(plain(form.elements.n.value), form.elements.what.value);
});

async function find(n, what) {
  stop.abort();
  stop = new AbortController();
  at("refusal").replaceChildren();
  at("found").hidden = true;
  view.clear();
  at("found-summary").hidden = true;
  try {
    await { digits: showDigits, summary: showSummary, residue: showResidue }[what](n, stop.signal);
  } catch (error) {
    report(error, n);
  }
}

function report(error, n) {
  if (error instanceof Problem) {
    const instead = error.related ? [button("Show its summary", () => find(n, "summary"))] : [];
    complain(at("refusal"), error.title, error.detail, ...instead);
  } else if (error instanceof Lost) {
    complain(at("refusal"), "The service does not answer", "Nothing is lost by asking again.");
  } else if (!isAborted(error)) {
    throw error;
  }
}

const path = (n) => `/api1/terms/${encodeURIComponent(n)}`;

function found(sentence) {
  at("found-said").textContent = sentence;
  at("found").hidden = false;
}

async function showDigits(n, signal) {
  const base = form.elements.base.value;
  const name = `F(${grouped(n)})`;
  const whole = base === "10" ? path(n) : `${path(n)}?base=${base}`;
  const get = (more, read) => {
    const headers = { ...TEXT, ...more };
    return computed(name, () => ask("GET", whole, { headers, read, signal }), signal);
  };
  const first = await get({ Range: `bytes=0-${FIRST - 1}` });
  const length = BigInt(first.headers.get("Content-Range").split("/")[1]);
  const last = length > FIRST ? await get({ Range: `bytes=-${END}` }) : first;
  const sign = BigInt(first.body.startsWith("-"));
  const digits = length - sign;
  view.show({
    ...parts(name, first.body),
    digits,
    tail: last.body.slice(-END),
    whole: async () => (await get({})).body,
    file: async () => (await get({}, "blob")).body,
    filename: `fibonacci-${n.slice(0, 30)}${base === "10" ? "" : `-base-${base}`}.txt`,
  });
  const inBase = base === "10" ? "" : ` in base ${base}`;
  found(`${name}${inBase}, ${grouped(digits.toString())} digit${digits === 1n ? "" : "s"}`);
}

/** Ask until what is asked for is computed. */
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
    // It has ended by itself, or another client has cancelled it.
    if (!(error instanceof Problem && error.status === 404)) {
      report(error);
      return;
    }
  }
  found("Cancelled.");
}

async function showResidue(n, signal) {
  const modulus = plain(form.elements.modulo.value);
  const query = `?modulo=${encodeURIComponent(modulus)}`;
  const { body } = await ask("GET", path(n) + query, { headers: TEXT, signal });
  const name = `F(${grouped(n)}) mod ${grouped(modulus)}`;
  view.show({ ...parts(name, body), filename: `fibonacci-${n.slice(0, 30)}-residue.txt` });
  found(name);
}

async function showSummary(n, signal) {
  const summary = (await ask("GET", `${path(n)}/summary`, { read: "json", signal })).body;
  const facts = [
    ["Digits", grouped(summary.digits, LONGEST_COUNT)],
    ["First digits", summary.leading.replace("-", "−")],
    ["Last digits", summary.trailing],
    ["Bytes in binary", grouped(summary.bytes, LONGEST_COUNT)],
  ];
  at("found-summary").replaceChildren(
    ...facts.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value)),
    ),
  );
  at("found-summary").hidden = false;
  found(`F(${grouped(n)})`);
}
