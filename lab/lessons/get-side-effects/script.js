// A prefetch, as <link rel="prefetch"> makes it. A browser that knows none sends nothing.
export async function prefetch(lab) {
  const link = document.createElement("link");
  if (!link.relList.supports("prefetch")) return { readable: false, saw: "this browser does not prefetch" };
  link.rel = "prefetch";
  link.href = `${lab.origins[lab.target]}/transfer?amount=100&n=${crypto.randomUUID()}`;
  const end = new Promise((done) => {
    link.onload = () => done("load");
    link.onerror = () => done("error");
    setTimeout(done, 2000, "no event");
  });
  document.head.append(link);
  return { readable: false, saw: await end };
}
