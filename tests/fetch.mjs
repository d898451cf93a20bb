// Clients that step sequences of their own by Node's fetch, all at once; prints what came of it.
// Arguments: the URL of the service, how many clients, how many steps each.

const [service, clients, steps] = process.argv.slice(2);
const count = { right: 0, wrong: 0 };

async function client() {
  const made = await fetch(`${service}/api1/sequences`, { method: "POST" });
  const { id } = await made.json();
  for (let position = 1; position <= +steps; position++) {
    // Every other step with a body, as far as such a client sends one.
    const request =
      position % 2
        ? { method: "POST" }
        : {
            method: "PUT",
            headers: { "Content-Type": "application/json" },
            body: `{"position":"${position}"}`,
          };
    const path = `/api1/sequences/${id}${position % 2 ? "/next" : ""}`;
    const reply = await fetch(service + path, request);
    const shown = await reply.json();
    const right = reply.status === 200 && shown.id === id && shown.position === `${position}`;
    count[right ? "right" : "wrong"]++;
  }
}

await Promise.all(Array.from({ length: +clients }, client));
console.log(JSON.stringify(count));
