// The TypeScript SDK, 1.x or 2.x, as a client of one server, with what it keeps in memory.
//
// `settings` has `sdk` ("1" or "2"), `mcp`, `redirect_uri`, and for 2.x `mode`, the negotiation of versions.

import { createInterface } from "node:readline";
import { installed, say } from "./program.mjs";

export const settings = JSON.parse(process.argv[2]);

export const sdk =
  settings.sdk === "2"
    ? await installed("@modelcontextprotocol/client")
    : {
        ...(await installed("@modelcontextprotocol/sdk/client/index.js")),
        ...(await installed("@modelcontextprotocol/sdk/client/streamableHttp.js")),
        ...(await installed("@modelcontextprotocol/sdk/client/auth.js")),
      };

export const kept = {};

// `metadata` is registered beside what every client here is, `more` are further members of the provider.
export const provider = (metadata, more = {}) => ({
  redirectUrl: settings.redirect_uri,
  clientMetadata: {
    client_name: "a client on the TypeScript SDK",
    redirect_uris: [settings.redirect_uri],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
    ...metadata,
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
  ...more,
});

export const newTransport = (authProvider) =>
  new sdk.StreamableHTTPClientTransport(new URL(settings.mcp), { authProvider });

export const newClient = () =>
  new sdk.Client(
    { name: "typescript", version: settings.sdk },
    settings.mode ? { versionNegotiation: { mode: settings.mode } } : {},
  );

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// Gives a transport that was told to log in what the browser came back to.
export const finish = async (transport) => {
  const answer = new URL((await lines.next()).value).searchParams;
  await (settings.sdk === "2" ? transport.finishAuth(answer) : transport.finishAuth(answer.get("code")));
};
