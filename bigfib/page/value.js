/** Find the index of a value: is it a Fibonacci number? */

import { button } from "./dom.js";
import { complain } from "./notice.js";
import { grouped, read, requireNumber } from "./numbers.js";
import { Problem, ask } from "./service.js";

const at = (id) => document.getElementById(id);
const form = at("value-form");
const field = form.elements.value;
const answer = at("value-answer");

requireNumber(field, "a whole number, such as 55, −8, 1,000,000 or 10^6", () => true);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const value = read(field.value);
  answer.replaceChildren();
  at("value-refusal").replaceChildren();
  try {
    const headers = { "Content-Type": "text/plain" };
    const found = await ask("POST", "/api1/index", { headers, body: value, read: "json" });
    show("Yes, it is", found.body.n);
  } catch (error) {
    if (error instanceof Problem && error.status === 404) {
      show("No, it is between", error.neighbours);
    } else if (error instanceof Problem) {
      complain(at("value-refusal"), error.title, error.detail);
    } else {
      complain(at("value-refusal"), "The service does not answer", "Nothing has changed: try again.");
    }
  }
});

/** Show the sentence, and a button for each term. */
function show(sentence, indices) {
  const [first, ...others] = indices.map((n) => button(`F(${grouped(n)})`, () => look(n), "plain"));
  answer.replaceChildren(`${sentence} `, first, ...others.flatMap((other) => [" and ", other]));
}

/** Look up a term in the section above. */
function look(n) {
  at("n").value = n;
  at("explorer").requestSubmit();
}
