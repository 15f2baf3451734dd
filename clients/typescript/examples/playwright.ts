/** Playwright takes the same two. What it is of Playwright that this needs is written here, to see that they fit. */

import type { Herd } from "herd-client";

interface BrowserType<Browser> {
  connect(endpoint: string, options?: { headers?: { [key: string]: string } }): Promise<Browser>;
}

/** Uses the browser of a new session, whose worker is a Playwright server. */
export async function withBrowser<Browser extends { close(): Promise<void> }, T>(
  herd: Herd,
  chromium: BrowserType<Browser>,
  use: (browser: Browser) => Promise<T>,
  headers: Record<string, string> = {},
): Promise<T> {
  await using session = herd.session();
  const browser = await chromium.connect(session.websocketUrl("/"), { headers: { ...headers, ...session.headers } });
  try {
    return await use(browser);
  } finally {
    await browser.close();
  }
}
