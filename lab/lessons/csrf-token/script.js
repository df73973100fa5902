// pay does what the bank's page does: it reads the token, and sends it back in a header. From
// any other page it is the attack. With moat in front the token is moat's.
export async function pay(lab) {
  const gated = lab.target === "gate";
  const origin = lab.origins[lab.target];
  let token;
  try {
    const answer = await fetch(origin + (gated ? "/.moat/csrf" : "/account/token"), { credentials: "include" });
    const told = await answer.json();
    token = gated ? told.token : told.csrf_token;
  } catch (e) {
    lab.say(`the token could not be read: ${e.message}`);
    return { readable: false, saw: "no token" };
  }
  lab.say(token ? "the page has read the token" : "the answer has no token: nobody is signed in");
  try {
    const answer = await fetch(origin + (gated ? "/account/transfer" : "/account/safe-transfer"), {
      method: "POST",
      credentials: "include",
      headers: { "X-CSRF-Token": token ?? "", "Content-Type": "application/x-www-form-urlencoded" },
      body: "amount=100",
    });
    lab.say(`the transfer was answered with ${answer.status}`);
    return { readable: true, saw: `status ${answer.status}: ${(await answer.text()).trim()}` };
  } catch (e) {
    lab.say(`the transfer could not be made, or its answer not be read: ${e.message}`);
    return { readable: false, saw: "TypeError" };
  }
}
