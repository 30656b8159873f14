// What the programs here share: packages that `make clients` installed, and one JSON object a line to whoever started them.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.CLIENTS}/package.json`);

export const installed = (name) => import(pathToFileURL(require.resolve(name)));

export const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
