// Makes a fresh clone runnable: installs when node_modules is missing or older than the lock file,
// builds when dist is missing or older than its sources. Says nothing when there is nothing to do.
// It imports nothing that is not part of Node, because nothing else may be there yet.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync, statSync, utimesSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const NODE_MIN = [20, 19];
const SOURCE_FOLDERS = ["protocol", "hal", "firmware", "agent", "client", "board-configs", "bin"];
const SOURCE_FILES = ["package.json", "package-lock.json", "tsconfig.json"];

/** Ends the program when this Node is older than the code needs. */
function checkNode() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major > NODE_MIN[0] || (major === NODE_MIN[0] && minor >= NODE_MIN[1])) return;
  console.error(
    `Dyad needs Node ${NODE_MIN.join(".")} or newer; this is Node ${process.versions.node} ` +
      `(${process.execPath}). Install a newer one from https://nodejs.org and try again.`,
  );
  process.exit(1);
}

function modifiedMs(file) {
  return existsSync(file) ? statSync(file).mtimeMs : 0;
}

/** True when what is installed is what the lock file asks for. */
function isInstalled() {
  const lockFile = join(root, "package-lock.json");
  const installedFile = join(root, "node_modules", ".package-lock.json");
  if (!existsSync(installedFile)) return false;
  if (modifiedMs(installedFile) >= modifiedMs(lockFile)) return true;
  // A fresh checkout has new times on old content, so a newer lock file is compared by content.
  const wanted = JSON.parse(readFileSync(lockFile, "utf8")).packages;
  const installed = JSON.parse(readFileSync(installedFile, "utf8")).packages;
  for (const [place, entry] of Object.entries(wanted)) {
    if (place === "") continue;
    const found = installed[place];
    // A package for another kind of machine is rightly not installed.
    if (found === undefined && entry.optional === true) continue;
    if (found === undefined || found.version !== entry.version) return false;
  }
  const now = new Date();
  utimesSync(installedFile, now, now);
  return true;
}

function newestMs(folder) {
  let newest = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    const at = entry.isDirectory() ? newestMs(path) : statSync(path).mtimeMs;
    if (at > newest) newest = at;
  }
  return newest;
}

function isBuilt() {
  const builtMs = modifiedMs(join(root, "dist", ".built"));
  if (builtMs === 0) return false;
  for (const file of SOURCE_FILES) {
    if (modifiedMs(join(root, file)) > builtMs) return false;
  }
  for (const name of SOURCE_FOLDERS) {
    const folder = join(root, name);
    if (existsSync(folder) && newestMs(folder) > builtMs) return false;
  }
  return true;
}

function run(what, command, args) {
  const result = spawnSync(command, args, {
    cwd: root,
    // Its words go to stderr: stdout belongs to the program that is about to start.
    stdio: ["ignore", 2, 2],
    shell: process.platform === "win32" && command === "npm",
  });
  if (result.error !== undefined) {
    console.error(`${what} could not start: ${result.error.message}. Is npm on the PATH?`);
    process.exit(1);
  }
  if (result.status !== 0) {
    console.error(`${what} failed (exit status ${result.status}); its own words are above.`);
    process.exit(1);
  }
}

export function prepare() {
  checkNode();
  if (!isInstalled()) {
    console.error("Installing what Dyad needs (npm ci) ...");
    const npm = process.env["npm_execpath"];
    const args = ["ci", "--include=dev", "--no-audit", "--no-fund", "--loglevel=error"];
    if (npm !== undefined && /\.c?js$/.test(npm)) run("npm ci", process.execPath, [npm, ...args]);
    else run("npm ci", "npm", args);
  }
  if (!isBuilt()) {
    console.error("Building ...");
    run("The build", process.execPath, [join(root, "bin", "build.mjs")]);
  }
}

if (process.argv[1] !== undefined && fileURLToPath(import.meta.url) === process.argv[1]) prepare();
