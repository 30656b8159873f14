// A client of an MCP server on oauth4webapi: it discovers, registers, is authorized with DPoP, and then does what each
// line of its input says, with one line of output for each.
//
// Settings are one JSON object in the first argument: `mcp`, the endpoint, and `redirect_uri`. The first line of output
// is where a browser is to be sent, the first line of input what it comes back to.

import { createInterface } from "node:readline";
import { installed, say } from "./program.mjs";

const oauth = await installed("oauth4webapi");
const settings = JSON.parse(process.argv[2]);
const resource = new URL(settings.mcp);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const nextLine = async () => (await lines.next()).value;

let sent; // The latest request, as it went out.
const options = {
  [oauth.allowInsecureRequests]: true,
  [oauth.customFetch]: (url, request) => {
    sent = [url, request];
    return fetch(url, request);
  },
};

const nonces = { issuer: 0, resource: 0 };
const following = async (whose, attempt) => {
  try {
    return await attempt();
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error;
    nonces[whose] += 1;
    return attempt();
  }
};

// RFC 9728, RFC 8414, RFC 7591.
const described = await oauth.processResourceDiscoveryResponse(resource, await oauth.resourceDiscoveryRequest(resource, options));
const issuer = new URL(described.authorization_servers[0]);
const as = await oauth.processDiscoveryResponse(
  issuer,
  await oauth.discoveryRequest(issuer, { ...options, algorithm: "oauth2" }),
);
const client = await oauth.processDynamicClientRegistrationResponse(
  await oauth.dynamicClientRegistrationRequest(
    as,
    {
      client_name: "a client on oauth4webapi",
      application_type: "native",
      redirect_uris: [settings.redirect_uri],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
      dpop_bound_access_tokens: true,
    },
    options,
  ),
);

const newHandle = async () => oauth.DPoP(client, await oauth.generateKeyPair("ES256"));
const DPoP = await newHandle();
const verifier = oauth.generateRandomCodeVerifier();
const state = oauth.generateRandomState();
const authorize = new URL(as.authorization_endpoint);
authorize.search = new URLSearchParams({
  client_id: client.client_id,
  redirect_uri: settings.redirect_uri,
  response_type: "code",
  scope: "mcp:tools",
  resource: resource.href,
  code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
  code_challenge_method: "S256",
  state,
  dpop_jkt: await DPoP.calculateThumbprint(),
});
say({ authorize: authorize.href, bound: client.dpop_bound_access_tokens === true });

// RFC 9207 and RFC 9449 §5; the library tells whether the issuer in the answer is the one that was asked.
const answer = oauth.validateAuthResponse(as, client, new URL(await nextLine()), state);
const redeem = async (handle) => {
  const parameters = { resource: resource.href };
  const request = { ...options, DPoP: handle, additionalParameters: parameters };
  const response = await oauth.authorizationCodeGrantRequest(
    as,
    client,
    oauth.None(),
    answer,
    settings.redirect_uri,
    verifier,
    request,
  );
  return oauth.processAuthorizationCodeResponse(as, client, response);
};

const refresh = async (handle) => {
  const request = { ...options, DPoP: handle, additionalParameters: { resource: resource.href } };
  const response = await oauth.refreshTokenGrantRequest(as, client, oauth.None(), tokens.refresh_token, request);
  return oauth.processRefreshTokenResponse(as, client, response);
};

const toolCall = {
  headers: {
    accept: "application/json, text/event-stream",
    "content-type": "application/json",
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "tools/call",
    "mcp-name": "whoami",
  },
  body: JSON.stringify({
    jsonrpc: "2.0",
    id: 1,
    method: "tools/call",
    params: {
      name: "whoami",
      arguments: {},
      _meta: {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { name: "oauth4webapi", version: "3" },
        "io.modelcontextprotocol/clientCapabilities": {},
      },
    },
  }),
};

const call = async (handle) => {
  const headers = new Headers(toolCall.headers);
  const request = { ...options, DPoP: handle };
  return oauth.protectedResourceRequest(tokens.access_token, "POST", resource, headers, toolCall.body, request);
};

const plainCall = (authorization) =>
  fetch(resource, { method: "POST", headers: { ...toolCall.headers, authorization }, body: toolCall.body });

const seen = async (response) => ({
  status: response.status,
  challenge: response.headers.get("www-authenticate"),
  text: await response.text(),
});

// What a refusal comes to in the library: a challenge, or the error of a token endpoint.
const outcome = async (attempt) => {
  try {
    return await attempt();
  } catch (error) {
    if (error instanceof oauth.WWWAuthenticateChallengeError) {
      return { status: error.status, challenge: error.response.headers.get("www-authenticate"), text: "" };
    }
    if (error instanceof oauth.ResponseBodyError) return { status: error.status, error: error.error };
    throw error;
  }
};

const granted = (answered) => {
  tokens = answered;
  return { status: 200, token_type: tokens.token_type, opaque: !tokens.access_token.includes(".") };
};

const deeds = {
  // What the client does for its user.
  redeem: async () => granted(await following("issuer", () => redeem(DPoP))),
  call: async () => seen(await following("resource", () => call(DPoP))),
  refresh: async () => granted(await following("issuer", () => refresh(DPoP))),
  revoke: async () => seen(await oauth.revocationRequest(as, client, oauth.None(), tokens.access_token, options)),
  // What a thief does who has everything but the key.
  repeat: async () => seen(await fetch(...sent)),
  bearer: () => plainCall(`Bearer ${tokens.access_token}`).then(seen),
  unproved: () => plainCall(`DPoP ${tokens.access_token}`).then(seen),
  "call with another key": async () => {
    const thief = await newHandle();
    return seen(await following("resource", () => call(thief)));
  },
  "redeem with another key": async () => {
    const thief = await newHandle();
    return granted(await following("issuer", () => redeem(thief)));
  },
  "redeem without a key": async () => granted(await redeem(undefined)),
  "refresh with another key": async () => {
    const thief = await newHandle();
    return granted(await following("issuer", () => refresh(thief)));
  },
};

let tokens;
for (let deed = await nextLine(); deed !== undefined; deed = await nextLine()) {
  say({ ...(await outcome(deeds[deed])), nonces });
}
process.exit(0);
