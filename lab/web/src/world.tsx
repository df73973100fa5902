// The map: who is which origin, which of them are one site, and which browser takes them
// for what.
import type { Boot, Role } from "./lab";
import { called } from "./roles";

const pages: [Role, string][] = [
  ["stranger", "another site: cross-site"],
  ["blog", "same site, other origin"],
  ["bank", "same site, other origin"],
];

export function World({ boot }: { boot: Boot }) {
  return (
    <section class="world" aria-labelledby="world-title">
      <h2 id="world-title">The world</h2>
      <div class="map">
        <ul class="askers">
          {pages.map(([role, relation]) => (
            <li key={role}>
              <Place boot={boot} role={role} />
              <p class="relation"><span>{relation}</span></p>
            </li>
          ))}
          <li>
            <div class="place lab"><b>curl</b><span>a program, no browser</span></div>
            <p class="relation"><span>no origin, no site, no rules</span></p>
          </li>
        </ul>
        <div class="asked">
          <Place boot={boot} role="api" />
          <p>with alice's money</p>
          <Place boot={boot} role="gate" />
          <p>the same API, behind a real gateway</p>
        </div>
      </div>
      <ul class="facts">
        <li>
          <b>Six origins.</b> An origin is scheme, host and port, so each of these is another one. CORS and the same-origin policy go by it.
        </li>
        <li>
          <b>{boot.shared ? "Two sites." : "Three sites."}</b> {boot.shared
            ? "A site is a registrable domain. Cookies with SameSite go by it."
            : "Browsers take localhost for a public suffix, such as com. So all of bank.localhost is one site, stranger.localhost is another, and localhost itself, the lab, a third. Cookies with SameSite go by it."}
        </li>
        <li>
          <b>The address bar tells whose page it is.</b> The lab's page is served on all of these sites. What you run on the stranger's, the
          stranger's script does.
        </li>
        <li>
          <b>Browsers differ.</b> Chromium and Firefox find names below localhost by themselves; Safari asks the system, which may not. A
          cookie without SameSite is Lax in Chromium, and None in Firefox and Safari. Firefox keeps third parties' cookies apart for
          every site, Safari blocks them.
        </li>
      </ul>
    </section>
  );
}

function Place({ boot, role }: { boot: Boot; role: Role }) {
  return (
    <div class={`place ${role}`}>
      <b>{called[role]}{role === boot.role && " (you are here)"}</b>
      <code>{boot.origins[role]}</code>
    </div>
  );
}
