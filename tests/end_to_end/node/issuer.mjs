// An authorization server of somebody else: oidc-provider on a loopback port, for whatever resource is asked for.
//
// Settings are one JSON object in the first argument: `format` of access tokens ("jwt" or "opaque") and `nonces`, whether
// DPoP proofs need one. It says where it is in its first line of output; each line of input, "rotate", puts a new signing
// key in front of the ones before, of which it goes on publishing the last. It ends with its input.

import { generateKeyPairSync, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { installed, say } from "./program.mjs";

console.info = console.warn = console.error; // The library's notices are not answers.
const { default: Provider } = await installed("oidc-provider");

const settings = JSON.parse(process.argv[2]);
const nonceSecret = randomBytes(32);
const cookieKeys = [randomBytes(32).toString("hex")];

const newKey = () => ({
  ...generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" }),
  alg: "ES256",
  use: "sig",
  kid: randomBytes(8).toString("hex"),
});

const resourceServer = (resource) => ({
  scope: "mcp:tools",
  audience: resource,
  accessTokenTTL: 300,
  accessTokenFormat: settings.format,
  jwt: { sign: { alg: "ES256" } },
});

const confidential = (client_id, grant_types) => ({
  client_id,
  client_secret: settings.secret,
  token_endpoint_auth_method: "client_secret_basic",
  grant_types,
  redirect_uris: [],
  response_types: [],
});

const configuration = (keys) => ({
  jwks: { keys },
  cookies: { keys: cookieKeys },
  clients: [confidential("guard", []), confidential("robot", ["client_credentials"])],
  clientDefaults: { id_token_signed_response_alg: "ES256" },
  findAccount: async (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  issueRefreshToken: async (ctx, client) => client.grantTypeAllowed("refresh_token"),
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    registration: { enabled: true },
    revocation: { enabled: true },
    introspection: { enabled: true, allowedPolicy: async () => true },
    dPoP: { enabled: true, nonceSecret, requireNonce: () => settings.nonces },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: async (ctx, resource) => resourceServer(resource),
      useGrantedResource: async () => true,
    },
  },
});

let keys = [newKey()];
let answer;
const server = createServer((request, response) => answer(request, response));
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const serve = () => {
    answer = new Provider(issuer, configuration(keys)).callback();
  };
  serve();
  say({ issuer });
  const input = createInterface({ input: process.stdin });
  input.on("line", () => {
    keys = [newKey(), keys[0]];
    serve();
    say({ kid: keys[0].kid });
  });
  input.on("close", () => process.exit(0));
});
