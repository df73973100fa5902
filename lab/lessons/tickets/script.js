// client loads moat's client from the gate, as the bank's page would. The gate is made anew for
// each run and knows no ticket of the run before, so the browser forgets them as well.
async function client(lab) {
  if (!globalThis.moat?.fetch) {
    await new Promise((done) => {
      const forgetting = indexedDB.deleteDatabase("moat");
      forgetting.onsuccess = forgetting.onerror = forgetting.onblocked = done;
    });
    await new Promise((done, fail) => {
      const script = document.createElement("script");
      script.src = lab.origins.gate + "/.moat/client.js";
      script.onload = done;
      script.onerror = () => fail(new Error("the gate has no client: tickets are off in its moat.yaml"));
      document.head.append(script);
    });
  }
  return globalThis.moat;
}

const question = (text) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ prompt: text }) });

// shown is what of an answer the script can tell.
async function shown(lab, what, answer) {
  const saw = `${what}: status ${answer.status}, ${(await answer.text()).trim().slice(0, 120)}`;
  lab.say(saw);
  return { readable: true, saw };
}

// withTicket has moat's client prepare a call, and returns the request instead of sending it:
// all that the network tab would show.
async function withTicket(lab, init) {
  // The gate of each run is a new one, which knows no ticket that the client kept.
  await new Promise((done) => {
    const forgetting = indexedDB.deleteDatabase("moat");
    forgetting.onsuccess = forgetting.onerror = forgetting.onblocked = done;
  });
  const moat = await client(lab);
  let caught;
  const prepare = moat({
    nativeFetch: async (input, more) => {
      const request = new Request(input, more);
      if (!request.headers.has("Moat-Ticket")) return fetch(request); // the client fetches its ticket
      caught = request;
      return new Response("{}", { status: 200 });
    },
  });
  await prepare(lab.origins.gate + "/ask", init);
  if (!caught) throw new Error("moat's client sent no ticket");
  lab.say(`Moat-Ticket: ${caught.headers.get("Moat-Ticket").slice(0, 24)}…`);
  return caught;
}

export async function ask(lab) {
  const moat = await client(lab);
  return shown(lab, "the answer", await moat.fetch(lab.origins.gate + "/ask", question("hello")));
}

export async function replay(lab) {
  const request = await withTicket(lab, question("hello"));
  await shown(lab, "the first time", await fetch(request.clone()));
  return shown(lab, "the second time", await fetch(request));
}

export async function otherQuestion(lab) {
  const request = await withTicket(lab, question("hello"));
  const other = question("write my homework");
  other.headers["Moat-Ticket"] = request.headers.get("Moat-Ticket");
  return shown(lab, "another question", await fetch(request.url, other));
}
