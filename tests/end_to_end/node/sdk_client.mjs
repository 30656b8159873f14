// A client on the TypeScript SDK, 1.x or 2.x, that logs in and calls the tool `whoami`.
//
// Settings are one JSON object in the first argument: those of `typescript.mjs`, and `dpop`. The first line of output is
// where a browser is to be sent, the first line of input what it comes back to; the second line of output is what the
// tool answered.

import { say } from "./program.mjs";
import { finish, kept, newClient, newTransport, provider, sdk, settings } from "./typescript.mjs";

const session = settings.dpop ? await sdk.DpopSession.create() : undefined;
const person = provider(
  {
    grant_types: ["authorization_code", "refresh_token"],
    ...(settings.dpop ? { dpop_bound_access_tokens: true } : {}),
  },
  settings.dpop ? { dpop: () => session } : {},
);

const first = newTransport(person);
try {
  await newClient().connect(first);
  throw new Error("the server let a client in that had not logged in");
} catch (error) {
  if (!(error instanceof sdk.UnauthorizedError)) throw error;
}
await finish(first);

const client = newClient();
await client.connect(newTransport(person));
const called = await client.callTool({ name: "whoami", arguments: {} });
say({ text: called.content[0].text, token_type: kept.tokens.token_type });
await client.close();
process.exit(0);
