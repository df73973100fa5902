// Visits the site with Node's fetch, or with the page's own client where the job names it.
import { pathToFileURL } from "node:url";

const job = JSON.parse(process.argv[2]);
const native = globalThis.fetch;
const get = async (fetch, url, init) => {
  const answer = await fetch(url, init);
  await answer.arrayBuffer();
  if (answer.status !== 200) throw new Error(`${url}: ${answer.status}`);
};

await get(native, job.origin + "/", { headers: job.page ?? [] });
let fetch = (url) => native(url, { headers: job.call ?? [] });
if (job.client) {
  const { moat } = await import(pathToFileURL(job.client).href);
  // What a browser adds to a page's calls, and to POST also the origin.
  const nativeFetch = (input, init) => {
    const request = new Request(input, init);
    for (const [name, value] of job.call) if (!/^accept$/i.test(name)) request.headers.set(name, value);
    if (request.method === "POST") request.headers.set("origin", job.origin);
    return native(request);
  };
  fetch = moat({ gate: job.origin + "/.moat", nativeFetch });
}
for (let n = 0; n < job.calls; n++) await get(fetch, `${job.origin}/api/items/${n % 200}`);
process.exit(0); // the client's timers would wait for the next renewal
