/**
 * The state table (firmware/core/role-table.ts) as a chip holds it: its rows are texts that stay in flash. As objects
 * they would take 860 of its variables.
 */
import { build } from "esbuild";

async function readTable(root) {
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

/** @returns a module with the same functions as role-table.ts, made from its tables */
export async function packedStates(root) {
  const { STATES, TRANSITIONS } = await readTable(root);
  const text = (value) => JSON.stringify(value);
  const choice = (rows) =>
    rows.map(([state, row]) => `case ${text(state)}: return ${row};`).join(" ");
  const paths = STATES.map(({ state }) => {
    const rows = TRANSITIONS.filter(({ from }) => from === state);
    return [state, text(rows.map(({ event, to }) => ` ${event}:${to}`).join("") + " ")];
  });
  return `
function pathsFrom(state) { switch (state) { ${choice(paths)} } return ""; }
export function nextState(from, event) {
  const paths = pathsFrom(from);
  const at = paths.indexOf(" " + event + ":");
  if (at < 0) return undefined;
  const start = at + event.length + 2;
  return paths.substring(start, paths.indexOf(" ", start));
}
export function isOpen(state) {
  return ${STATES.filter(({ open }) => open)
    .map(({ state }) => `state === ${text(state)}`)
    .join(" || ")};
}
export function meaningOf(state) { switch (state) { ${choice(STATES.map(({ state, means }) => [state, text(means)]))} } return ""; }
`;
}
