// A client on the TypeScript SDK, 1.x or 2.x, that calls a tool, and logs in as often as the server asks for it.
//
// Settings are one JSON object in the first argument: `sdk` ("1" or "2"), `mcp`, `redirect_uri`, `tool`, `grant_types`,
// and for 2.x `mode`, the negotiation of versions. Each login is one line of output, where a browser is to be sent, and
// one line of input, what it comes back to. The last line of output is what the tool answered.

import { createInterface } from "node:readline";
import { installed, say } from "./program.mjs";

const settings = JSON.parse(process.argv[2]);
const sdk =
  settings.sdk === "2"
    ? await installed("@modelcontextprotocol/client")
    : {
        ...(await installed("@modelcontextprotocol/sdk/client/index.js")),
        ...(await installed("@modelcontextprotocol/sdk/client/streamableHttp.js")),
        ...(await installed("@modelcontextprotocol/sdk/client/auth.js")),
      };
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const kept = {};
const provider = {
  redirectUrl: settings.redirect_uri,
  clientMetadata: {
    client_name: "a client on the TypeScript SDK",
    redirect_uris: [settings.redirect_uri],
    grant_types: settings.grant_types,
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  },
  clientInformation: () => kept.client,
  saveClientInformation: (client) => (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => (kept.tokens = tokens),
  redirectToAuthorization: (url) => say({ authorize: url.href }),
  saveCodeVerifier: (verifier) => (kept.verifier = verifier),
  codeVerifier: () => kept.verifier,
  saveDiscoveryState: (state) => (kept.discovery = state),
  discoveryState: () => kept.discovery,
};

for (;;) {
  const transport = new sdk.StreamableHTTPClientTransport(new URL(settings.mcp), { authProvider: provider });
  const client = new sdk.Client(
    { name: "typescript", version: settings.sdk },
    settings.mode ? { versionNegotiation: { mode: settings.mode } } : {},
  );
  try {
    await client.connect(transport);
    const called = await client.callTool({ name: settings.tool, arguments: {} });
    say({ text: called.content[0].text, scope: kept.tokens.scope });
    await client.close();
    process.exit(0);
  } catch (error) {
    if (!(error instanceof sdk.UnauthorizedError)) throw error;
    const answer = new URL((await lines.next()).value).searchParams;
    await (settings.sdk === "2" ? transport.finishAuth(answer) : transport.finishAuth(answer.get("code")));
  }
}
