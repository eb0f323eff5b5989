// Lets `node --import ./sim/ts-node.mjs file.ts` run TypeScript on Node 20, types stripped and not
// checked (tsc does that once, in `npm run check`).
import { register } from "node:module";

register("ts-node/esm/transpile-only", import.meta.url);
