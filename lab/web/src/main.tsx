import { render } from "preact";
import { App } from "./app";
import { get, listen, startBooks, type Boot } from "./lab";
import { merge } from "./progress";
import { probe } from "./run";
import "./style.css";

const root = document.getElementById("app")!;

try {
  const boot = await get<Boot>("boot");
  startBooks(boot.books);
  render(<App boot={boot} />, root);
  listen();
  merge();
  probe(boot).catch(() => {}); // it tells of what differs; nothing hangs on it
} catch (e) {
  render(<p role="alert">{String(e instanceof Error ? e.message : e)}</p>, root);
}
