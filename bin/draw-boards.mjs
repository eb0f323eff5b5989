// Draws the wiring of every board from its configuration: docs/img/board-NAME.svg, and the tables in docs/BOARDS.md.
//   node bin/draw-boards.mjs           writes them
//   node bin/draw-boards.mjs --check   fails when they are not current
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { format, resolveConfig } from "prettier";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const page = join(root, "docs", "BOARDS.md");
const BEGIN = "<!-- drawn by bin/draw-boards.mjs: do not edit -->";
const END = "<!-- end of what is drawn -->";

const WIRES = { sck: "SCLK", miso: "MISO", mosi: "MOSI", cs: "SCS" };

/** Every wire of a board: [pin of the board, where it goes, what for]. */
function wiresOf({ network }) {
  if (network.spi === undefined) return [];
  const chip = network.chip.toUpperCase();
  const wires = Object.entries(WIRES).map(([wire, name]) => [
    network.spi[wire],
    `${chip} ${name}`,
    `${network.spi.bus} ${name}`,
  ]);
  if (network.reset !== undefined) wires.push([network.reset, `${chip} RSTn`, "reset at boot"]);
  wires.push(["3.3 V", `${chip} 3.3V`, "supply, up to 150 mA"], ["GND", `${chip} GND`, "ground"]);
  return wires;
}

/** The same of the fencing lines. */
function fencesOf({ servers }) {
  return servers
    .filter((server) => server.fence !== undefined)
    .flatMap(({ id, fence }) => [
      [fence.output, `relay: ${id} off`, `switches ${id} off while ${fence.active ?? "high"}`],
      [fence.input, `supply of ${id}`, `${fence.running ?? "high"} while ${id} runs`],
    ]);
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

function drawing(board) {
  const wires = wiresOf(board);
  const rows = Math.max(wires.length, 2);
  const fences = fencesOf(board);
  // A box of its own, with room for its title.
  const below = 40 + rows * 26 + 20 + 40;
  const tall = fences.length === 0 ? 0 : fences.length * 26 + 60;
  const height = 70 + rows * 26 + 60 + tall;
  const parts = [];
  const text = (x, y, what, more = "") =>
    parts.push(`<text x="${x}" y="${y}" ${more}>${escaped(what)}</text>`);
  const box = (x, y, width, tall) =>
    parts.push(`<rect x="${x}" y="${y}" width="${width}" height="${tall}" rx="6" class="box"/>`);
  box(20, 40, 190, rows * 26 + 20 + tall);
  // The module beside it has a box and a title of its own.
  text(30, 30, board.hardware.name.split(" with ")[0], 'class="head"');
  const network = board.network.chip;
  const wired = wires.length > 0;
  box(380, 40, 150, rows * 26 + 20);
  text(390, 30, wired ? `${network.toUpperCase()} module` : "Wi-Fi access point", 'class="head"');
  wires.forEach(([pin, to], i) => {
    const y = 62 + i * 26;
    parts.push(`<line x1="210" y1="${y}" x2="380" y2="${y}" class="wire"/>`);
    text(200, y + 4, pin, 'text-anchor="end"');
    text(390, y + 4, to);
  });
  if (fences.length > 0) {
    box(380, below, 150, fences.length * 26 + 20);
    text(390, below - 10, "fence relays", 'class="head"');
    fences.forEach(([pin, to], i) => {
      const y = below + 22 + i * 26;
      parts.push(`<line x1="210" y1="${y}" x2="380" y2="${y}" class="wire"/>`);
      text(200, y + 4, pin, 'text-anchor="end"');
      text(390, y + 4, to);
    });
  }
  if (!wired) {
    parts.push('<line x1="210" y1="66" x2="380" y2="66" class="air"/>');
    text(225, 58, `Wi-Fi "${board.network.ssid}"`);
  }
  box(600, 40, 120, rows * 26 + 20);
  text(610, 30, "network switch", 'class="head"');
  parts.push('<line x1="530" y1="66" x2="600" y2="66" class="wire"/>');
  board.servers.forEach((server, i) => {
    const y = 66 + i * 40;
    parts.push(`<line x1="720" y1="${y}" x2="780" y2="${y}" class="wire"/>`);
    text(785, y + 4, `server ${server.id}, ${server.host}${server.preset ? " (preset)" : ""}`);
  });
  text(20, height - 20, `console: ${board.hardware.consoleDevice}`);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 ${height}" width="1000" height="${height}" font-family="sans-serif" font-size="13">
<style>.box{fill:#f4f6f8;stroke:#456}.wire{stroke:#456;stroke-width:1.5}.air{stroke:#456;stroke-dasharray:4 4}.head{font-weight:bold}</style>
<rect width="1000" height="${height}" fill="#fff"/>
${parts.join("\n")}
</svg>
`;
}

function section(name, board) {
  const { hardware, slots, ports, limits, network } = board;
  const clients = [
    ports.redis > 0 ? `${slots.redis} Redis (port ${ports.redis})` : "no Redis port",
    ports.native > 0 ? `${slots.native} native (port ${ports.native})` : "no native port",
  ].join(", ");
  const carries =
    ports.redis > 0 || ports.native > 0
      ? `Clients: ${clients}. Largest value: ${limits.valueBytesMax} bytes; ${limits.inFlightMax} commands under way at a server`
      : "No clients: it chooses and changes roles, and programs use the servers' local ports";
  const wires = [...wiresOf(board), ...fencesOf(board)];
  const air = network.ssid === undefined ? "" : `Wi-Fi, network \`${network.ssid}\`.`;
  const table =
    wires.length === 0
      ? `No wires but power: ${air}`
      : `${air === "" ? "" : `${air}\n\n`}| ${name} | goes to | for |\n|---|---|---|\n${wires.map((row) => `| ${row.join(" | ")} |`).join("\n")}`;
  return `### ${name}

${hardware.name}. ${hardware.variables} variables of ${hardware.variableBytes} bytes, ${hardware.storageBytes} bytes of Storage, console on \`${hardware.consoleDevice}\`, \
watchdog ${hardware.watchdogSeconds} s. ${carries}; console \`${board.console}\`.

![wiring of ${name}](img/board-${name}.svg)

${table}
`;
}

const boards = readdirSync(join(root, "board-configs"))
  .filter((file) => file.endsWith(".json"))
  .map((file) => [
    file.slice(0, -".json".length),
    JSON.parse(readFileSync(join(root, "board-configs", file), "utf8")),
  ])
  .filter(([, board]) => board.network !== undefined && board.network.chip !== "host");

const files = boards.map(([name, board]) => [
  join(root, "docs", "img", `board-${name}.svg`),
  drawing(board),
]);
const text = readFileSync(page, "utf8");
const drawn = `${BEGIN}\n\n${boards.map(([name, board]) => section(name, board)).join("\n")}\n${END}`;
const whole =
  text.slice(0, text.indexOf(BEGIN)) + drawn + text.slice(text.indexOf(END) + END.length);
files.push([page, await format(whole, { ...(await resolveConfig(page)), filepath: page })]);

const stale = files.filter(([file, content]) => {
  try {
    return readFileSync(file, "utf8") !== content;
  } catch {
    return true;
  }
});
if (process.argv.includes("--check")) {
  for (const [file] of stale) console.error(`${file} is not current: node bin/draw-boards.mjs`);
  process.exit(stale.length > 0 ? 1 : 0);
}
for (const [file, content] of stale) writeFileSync(file, content);
