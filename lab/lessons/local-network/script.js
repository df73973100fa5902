// What the browser says of the permissions to reach this machine and the local network.
export async function permission(lab) {
  const states = [];
  for (const name of ["loopback-network", "local-network", "local-network-access"]) {
    try {
      states.push(`${name}: ${(await navigator.permissions.query({ name })).state}`);
    } catch {
      lab.say(`This browser knows no permission called ${name}.`);
    }
  }
  return { readable: false, saw: states.join(", ") || "no such permission in this browser" };
}
