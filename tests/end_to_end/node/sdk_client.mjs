// A client on the TypeScript SDK, 1.x or 2.x, that logs in and calls the tool `whoami`.
//
// Settings are one JSON object in the first argument: `sdk` ("1" or "2"), `mcp`, `redirect_uri`, for 2.x `mode`, the
// negotiation of versions, and `dpop`. The first line of output is where a browser is to be sent, the first line of input
// what it comes back to; the second line of output is what the tool answered.

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

const session = settings.dpop ? await sdk.DpopSession.create() : undefined;
const kept = {};
const provider = {
  redirectUrl: settings.redirect_uri,
  clientMetadata: {
    client_name: "a client on the TypeScript SDK",
    redirect_uris: [settings.redirect_uri],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
    ...(settings.dpop ? { dpop_bound_access_tokens: true } : {}),
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
  ...(settings.dpop ? { dpop: () => session } : {}),
};

const newTransport = () => new sdk.StreamableHTTPClientTransport(new URL(settings.mcp), { authProvider: provider });
const newClient = () =>
  new sdk.Client(
    { name: "typescript", version: settings.sdk },
    settings.mode ? { versionNegotiation: { mode: settings.mode } } : {},
  );

const first = newTransport();
try {
  await newClient().connect(first);
  throw new Error("the server let a client in that had not logged in");
} catch (error) {
  if (!(error instanceof sdk.UnauthorizedError)) throw error;
}
const answer = new URL((await lines.next()).value).searchParams;
await (settings.sdk === "2" ? first.finishAuth(answer) : first.finishAuth(answer.get("code")));

const client = newClient();
await client.connect(newTransport());
const called = await client.callTool({ name: "whoami", arguments: {} });
say({ text: called.content[0].text, token_type: kept.tokens.token_type });
await client.close();
process.exit(0);
