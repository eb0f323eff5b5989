// Draws docs/states.md from the controller's state table (firmware/core/role-table.ts).
//   node bin/draw-states.mjs           writes it
//   node bin/draw-states.mjs --check   fails when it is not current
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { format, resolveConfig } from "prettier";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const target = join(root, "docs", "states.md");

async function readTable() {
  const result = await build({
    absWorkingDir: root,
    entryPoints: ["firmware/core/role-table.ts"],
    bundle: true,
    format: "esm",
    write: false,
    logLevel: "error",
  });
  const code = Buffer.from(result.outputFiles[0].contents).toString("base64");
  return import(`data:text/javascript;base64,${code}`);
}

/** Events between the same two states share one arrow. */
function arrows(transitions) {
  const byPath = new Map();
  for (const { from, event, to } of transitions) {
    const path = `${from} --> ${to}`;
    if (!byPath.has(path)) byPath.set(path, []);
    byPath.get(path).push(event);
  }
  return [...byPath].map(([path, events]) => `    ${path}: ${events.join(", ")}`);
}

function page({ STATES, TRANSITIONS }) {
  return `# The controller's states

Drawn from the table in \`firmware/core/role-table.ts\` by \`node bin/draw-states.mjs\`; do not edit. The rules are
those of [the role protocol](ROLE-PROTOCOL.md), the P numbers are the modules of the source.

\`\`\`mermaid
stateDiagram-v2
    [*] --> off
${arrows(TRANSITIONS.filter((row) => row.event !== "alarm")).join("\n")}
\`\`\`

Not drawn: \`alarm\`, which leads from every state with a record to \`blank\` (rule 19); from \`writing\` it does so when
the flash has ended its write.

## States

| state | commands are sent | meaning |
|---|---|---|
${STATES.map((row) => `| \`${row.state}\` | ${row.open ? "yes" : "no"} | ${row.means} |`).join("\n")}

## Transitions

| from | event | to | rule |
|---|---|---|---|
${TRANSITIONS.map((row) => `| \`${row.from}\` | ${row.event} | \`${row.to}\` | ${row.rule} |`).join("\n")}

Any other event in a state is refused and changes nothing, or, if it is our own, is a broken invariant.
`;
}

const settings = await resolveConfig(target);
const text = await format(page(await readTable()), { ...settings, parser: "markdown" });
if (process.argv.includes("--check")) {
  let found = "";
  try {
    found = readFileSync(target, "utf8");
  } catch {
    // Missing counts as not current.
  }
  if (found !== text) {
    console.error("docs/states.md is not current: run node bin/draw-states.mjs");
    process.exit(1);
  }
} else {
  writeFileSync(target, text);
}
