// A client on the TypeScript SDK, 1.x or 2.x, that calls a tool, and logs in as often as the server asks for it.
//
// Settings are one JSON object in the first argument: those of `typescript.mjs`, `tool` and `grant_types`. Each login is
// one line of output, where a browser is to be sent, and one line of input, what it comes back to. The last line of
// output is what the tool answered.

import { say } from "./program.mjs";
import { finish, kept, newClient, newTransport, provider, sdk, settings } from "./typescript.mjs";

const person = provider({ grant_types: settings.grant_types });

for (;;) {
  const transport = newTransport(person);
  const client = newClient();
  try {
    await client.connect(transport);
    const called = await client.callTool({ name: settings.tool, arguments: {} });
    say({ text: called.content[0].text, scope: kept.tokens.scope });
    await client.close();
    process.exit(0);
  } catch (error) {
    if (!(error instanceof sdk.UnauthorizedError)) throw error;
    await finish(transport);
  }
}
