import type { DefendView, Tool } from "../tool";
import { later } from "./later";

export const tools: Tool[] = [
  {
    name: "composer", title: "Composer",
    summary: "Any request from any page, with any answer and any policy: run it for real, share it, or take it away as curl, HAR or a test vector.",
    View: later(() => import("./composer")),
  },
  {
    name: "audit", title: "Audit my config",
    summary: "Paste a moat.yaml, or what sets the CORS headers of nginx, Express or Apache, and see what a stranger's page could do with it.",
    View: later(() => import("./audit")),
  },
  {
    name: "decoder", title: "Error decoder",
    summary: "Paste an error from the console, a curl command or a HAR file, and see what happened, whether the backend ran, and what mends it.",
    View: later(() => import("./decoder")),
  },
];

export const Defend: DefendView = later(() => import("./defend"));
