// Who is who in the lab's world.
import type { Role } from "./lab";

export const called: Record<Role, string> = {
  lab: "the lab", bank: "the bank", api: "the bank's API", gate: "moat, before the API", blog: "the bank's blog", stranger: "the stranger",
};

export const whose: Record<Role, string> = {
  lab: "the lab's own page", bank: "the bank's site", api: "the bank's API", gate: "moat", blog: "the bank's blog", stranger: "the stranger's site",
};
