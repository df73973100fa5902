// What tells, in the page, that a program drives this browser. What private windows, extensions, frames, WebViews,
// background tabs or open developer tools change is no sign.

interface Hints {
  userAgentData?: { brands: { brand: string }[] };
}

/** The bits that docs/ticket-format.md has for what there is to see, or undefined: nothing, or this is no page. */
export const signs = (): number | undefined => {
  try {
    if (!globalThis.document) return; // on a server, or in a worker
    const { userAgent, userAgentData, webdriver } = navigator as Navigator & Hints;
    const seen = [
      webdriver,
      /Headless/.test(userAgent + userAgentData?.brands.map((b) => b.brand)),
      // It is the prototype's; and Chromium says it always.
      Object.hasOwn(navigator, "webdriver") || (userAgentData && typeof webdriver !== "boolean"),
      Object.getOwnPropertyNames(globalThis).some((name) => /^(cdc_\w{22}_|__(playwright|pwInit|selenium|webdriver|nightmare)|_phantom$|callPhantom$)/.test(name)),
    ];
    return seen.reduce((bits, sign, i) => bits | (+!!sign << i), 0) || undefined;
  } catch {
    return; // somebody has changed what this looks at
  }
};
