// A real, certified OpenID provider: panva's oidc-provider, with accounts that need no
// password. Its configuration is the JSON in OIDC: {port, clients, ttl, claims, keys}.
//
// Whoever types a name into its form is that account, and consents to everything. Access
// tokens are opaque, and JWTs for a resource that is asked for by its URL (RFC 8707).
import http from "node:http";
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { Provider } from "oidc-provider";

const config = JSON.parse(process.env.OIDC ?? "{}");

const key = (alg, type, options) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: "jwk" }),
  alg,
  use: "sig",
  kid: `${alg}-${randomUUID()}`,
});

const counts = {}; // of what was asked, and of tokens by their grant
const count = (what) => (counts[what] = (counts[what] ?? 0) + 1);
const grants = new Set();
const issued = []; // every code and token

function configuration() {
  return {
    clients: config.clients ?? [],
    jwks: { keys: config.keys ?? [key("RS256", "rsa", { modulusLength: 2048 }), key("ES256", "ec", { namedCurve: "P-256" })] },
    enabledJWA: { idTokenSigningAlgValues: ["RS256", "ES256"] },
    cookies: { keys: [randomUUID()] },
    ttl: {
      AccessToken: 3600, AuthorizationCode: 60, ClientCredentials: 3600, Grant: 86400, IdToken: 3600, Interaction: 600, RefreshToken: 86400, Session: 86400,
      ...config.ttl,
    },
    scopes: ["openid", "offline_access", "profile", "email"],
    claims: { openid: ["sub", "roles"], profile: ["name", "preferred_username"], email: ["email", "email_verified"] },
    conformIdTokenClaims: config.claims !== "id_token", // where they are: in userinfo, or in the ID token too
    findAccount: (ctx, id) => ({
      accountId: id,
      claims: () => ({
        sub: id, name: `${id} of Example`, preferred_username: id, email: `${id}@example.com`, email_verified: true,
        roles: id === "admin" ? ["admin", "user"] : ["user"],
      }),
    }),
    issueRefreshToken: (ctx, client) => client.grantTypeAllowed("refresh_token"),
    rotateRefreshToken: true,
    // Everybody has consented to everything.
    loadExistingGrant: async (ctx) => {
      const { client, session, params } = ctx.oidc;
      const grant = new ctx.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
      grant.addOIDCScope(params.scope ?? "openid");
      for (const resource of [params.resource ?? []].flat()) grant.addResourceScope(resource, params.scope ?? "");
      await grant.save();
      return grant;
    },
    // Its own dispatcher refuses to call anybody on this machine, where the tests are.
    fetch: (url, options) => globalThis.fetch(url, { ...options, dispatcher: undefined }),
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    features: {
      devInteractions: { enabled: false },
      backchannelLogout: { enabled: true },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      rpInitiatedLogout: {
        enabled: true,
        // No question: the form sends itself in a browser, and a test sends it.
        logoutSource: (ctx, form) => {
          ctx.body = `<!doctype html><title>Sign out</title>${form}<script>document.forms[0].append(Object.assign(document.createElement("input"),{name:"logout",value:"yes"}));document.forms[0].submit()</script>`;
        },
      },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx, resource) => ({
          scope: "read write", audience: resource, accessTokenFormat: "jwt", accessTokenTTL: config.ttl?.AccessToken ?? 3600, jwt: { sign: { alg: "RS256" } },
        }),
      },
    },
  };
}

let provider;

async function interaction(req, res) {
  await provider.interactionDetails(req, res); // it is one of this browser
  if (req.method === "POST") {
    let body = "";
    for await (const chunk of req) body += chunk;
    return provider.interactionFinished(req, res, { login: { accountId: new URLSearchParams(body).get("login") } });
  }
  res.setHeader("Content-Type", "text/html; charset=utf-8");
  res.end('<!doctype html><title>Sign in</title><form method="post"><input name="login" autofocus><button>Sign in</button></form>');
}

const server = http.createServer((req, res) => {
  const path = new URL(req.url, "http://localhost").pathname;
  count(path);
  if (!path.startsWith("/interaction/")) return provider.callback()(req, res);
  interaction(req, res).catch((err) => {
    res.statusCode = 400;
    res.end(err.message);
  });
});

const control = http.createServer(async (req, res) => {
  switch (`${req.method} ${req.url}`) {
    case "GET /__counts":
      res.setHeader("Content-Type", "application/json");
      return res.end(JSON.stringify(counts));
    case "GET /__issued":
      res.setHeader("Content-Type", "application/json");
      return res.end(JSON.stringify(issued));
    case "POST /__revoke": // every refresh token, as an administrator does
      for (const id of grants) await provider.RefreshToken.revokeByGrantId(id);
      return res.end();
  }
  res.statusCode = 404;
  res.end();
});

server.listen(config.port ?? 0, "127.0.0.1", () => {
  const { port } = server.address();
  provider = new Provider(`http://127.0.0.1:${port}`, configuration());
  for (const event of ["access_token", "authorization_code", "refresh_token"]) provider.on(`${event}.saved`, (token) => issued.push(token.jti));
  provider.on("grant.success", (ctx) => {
    if (ctx.body.id_token) issued.push(ctx.body.id_token);
    count(`grant ${ctx.oidc.params.grant_type}`);
    if (ctx.oidc.entities.Grant) grants.add(ctx.oidc.entities.Grant.jti);
  });
  provider.on("grant.error", (ctx, err) => {
    count("grant error");
    console.error(err.message, err.error_description);
  });
  provider.on("server_error", (ctx, err) => console.error(err));
  provider.on("backchannel.success", () => count("backchannel success"));
  provider.on("backchannel.error", (ctx, err) => {
    count("backchannel error");
    console.error(err);
  });
  control.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port, control: control.address().port })));
});

process.stdin.on("end", () => process.exit(0)).resume();
