/** Playwright takes the same two; its types are not needed to see that they fit. */

import { Herd, type Session } from "herd-client";

interface BrowserType {
  connect(endpoint: string, options?: { headers?: { [key: string]: string } }): Promise<{ close(): Promise<void> }>;
}

export async function withBrowser(chromium: BrowserType, use: (session: Session) => Promise<void>): Promise<void> {
  await using session = new Herd().session();
  const browser = await chromium.connect(session.websocketUrl("/"), { headers: session.headers });
  await use(session);
  await browser.close();
}
