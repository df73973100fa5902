// Signs requests as a robot of Web Bot Auth would, by RFC 9421 and the draft alone, and prints them
// as JSON.
import { createHash, generateKeyPairSync, randomBytes, sign } from 'node:crypto';

const { publicKey, privateKey } = generateKeyPairSync('ed25519');
const jwk = publicKey.export({ format: 'jwk' });
const keyid = createHash('sha256').update(JSON.stringify({ crv: jwk.crv, kty: jwk.kty, x: jwk.x })).digest('base64url');
const agent = 'https://agent.example';
const now = Math.floor(Date.now() / 1000);

function signed({ method = 'GET', host = 'api.example', target = '/', headers = {}, covered }) {
  const [path, ...query] = target.split('?');
  const all = { 'signature-agent': `me="${agent}"`, ...headers };
  const values = {
    '"@method"': method,
    '"@authority"': host.toLowerCase().replace(/:443$/, ''),
    '"@scheme"': 'https',
    '"@path"': path,
    '"@query"': '?' + query.join('?'),
    '"@target-uri"': `https://${host.toLowerCase().replace(/:443$/, '')}${target}`,
    '"@request-target"': target,
    '"signature-agent";key="me"': `"${agent}"`,
  };
  for (const [name, value] of Object.entries(all)) values[`"${name}"`] = value.trim();
  const params = `(${covered.join(' ')});created=${now};expires=${now + 60};keyid="${keyid}";alg="ed25519"`
    + `;nonce="${randomBytes(32).toString('base64')}";tag="web-bot-auth"`;
  const base = [...covered.map((c) => `${c}: ${values[c]}`), `"@signature-params": ${params}`].join('\n');
  const signature = sign(null, Buffer.from(base), privateKey).toString('base64');
  return { method, host, target, headers: { ...all, 'signature-input': `sig=${params}`, signature: `sig=:${signature}:` }, now };
}

const agentOf = '"signature-agent";key="me"';
const requests = [
  signed({ covered: ['"@authority"', agentOf] }),
  signed({ covered: ['"@authority"', '"signature-agent"'] }),
  signed({ host: 'API.example:443', covered: ['"@authority"', agentOf] }),
  signed({ host: 'api.example:8443', covered: ['"@authority"', agentOf] }),
  signed({ method: 'POST', target: '/a%20b/c?d=e%26f&g', covered: ['"@method"', '"@target-uri"', '"@path"', '"@query"', '"@request-target"', '"@scheme"', agentOf] }),
  signed({ headers: { accept: ' text/html;q=0.5,\t*/* ', 'content-digest': 'sha-256=:AAAA:' }, covered: ['"content-digest"', '"accept"', '"@authority"', agentOf] }),
];
const other = signed({ target: '/?a=1', covered: ['"@authority"', '"@query"', agentOf] });
requests.push({ ...other, target: '/?a=2', tampered: true }, { ...signed({ covered: ['"@authority"', agentOf] }), host: 'other.example', tampered: true });

console.log(JSON.stringify({ jwks: { keys: [{ ...jwk, kid: keyid, use: 'sig' }] }, keyid, requests }));
