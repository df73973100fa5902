// Drives Chromium: drive.mjs playwright|puppeteer {"executablePath", "headless", "args", "userAgent"}. Each line of stdin is
// a page to open in a profile of its own; the answer is a line, "ok" when the page says that it is done.
import { createInterface } from "node:readline";

const [, , library, text] = process.argv;
const { userAgent, ...options } = JSON.parse(text);
let open, close;
if (library === "playwright") {
  const { chromium } = await import("playwright-core");
  const browser = await chromium.launch(options);
  close = () => browser.close();
  open = async (url) => {
    const context = await browser.newContext(userAgent ? { userAgent } : {});
    try {
      const page = await context.newPage();
      await page.goto(url);
      await page.waitForFunction(() => document.title.startsWith("done"), undefined, { timeout: 60_000 });
    } finally {
      await context.close();
    }
  };
} else {
  const { default: puppeteer } = await import("puppeteer-core");
  const browser = await puppeteer.launch(options);
  close = () => browser.close();
  open = async (url) => {
    const context = await browser.createBrowserContext();
    try {
      const page = await context.newPage();
      if (userAgent) await page.setUserAgent(userAgent);
      await page.goto(url);
      await page.waitForFunction(() => document.title.startsWith("done"), { timeout: 60_000 });
    } finally {
      await context.close();
    }
  };
}
for await (const line of createInterface({ input: process.stdin })) {
  try {
    await open(line);
    console.log("ok");
  } catch (error) {
    console.log(String(error).replaceAll("\n", " "));
  }
}
await close();
