/**
 * `dyad backup` asks a running server for a consistent copy of its store; `dyad restore` puts one into the
 * place of a stopped server's. A restored disk is a new disk: it has no identity and no record of
 * its own, and the pair lets it in by bringing it up to date.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { askController, askNode, NotReachable } from "./ask-node.js";
import { Failure } from "./failure.js";
import { lockHolder } from "./lock-holder.js";
import { parseStatus } from "./status.js";

const BACKUP_MS = 3600_000;
const MARK = "backup.json";
const STORE = "store";

interface BackupMark {
  format: number;
  server: string;
  at: string;
}

/** The standby when it is in sync, so that the primary is spared; else the primary. */
async function chooseServer(dir: string): Promise<string> {
  const status = parseStatus(await askController(dir, "status json"));
  const standby = status.servers.find((server) => server.id !== status.primary && server.inSync);
  const server = standby?.id ?? status.primary;
  if (server === null) {
    throw new Failure(`No server can be backed up now: ${status.why}. Name one with --server.`, 2);
  }
  return server;
}

function serverDir(dir: string, server: string): string {
  const path = join(dir, server);
  if (!existsSync(path)) {
    throw new Failure(`${dir} has no server "${server}" (there is no ${path}).`);
  }
  return path;
}

/** @returns what was done, for a person */
export async function backup(dir: string, server: string | undefined, to: string): Promise<string> {
  const target = resolve(to);
  if (existsSync(target)) {
    throw new Failure(`${target} exists already; a backup is written into a new directory.`);
  }
  const id = server ?? (await chooseServer(dir));
  const socket = join(serverDir(dir, id), "agent.sock");
  mkdirSync(target, { recursive: true });
  let answer: string;
  try {
    answer = await askNode(socket, `backup ${join(target, STORE)}`, BACKUP_MS);
  } catch (error) {
    rmSync(target, { recursive: true, force: true });
    if (!(error instanceof NotReachable)) throw error;
    throw new Failure(
      `Server ${id} does not answer (${error.message}); a backup is made by a running server. ` +
        `Start it, or name the other one with --server.`,
    );
  }
  if (!answer.startsWith("ok")) {
    rmSync(target, { recursive: true, force: true });
    throw new Failure(`Server ${id} could not write the backup: ${answer}`);
  }
  const mark: BackupMark = { format: 1, server: id, at: new Date().toISOString() };
  writeFileSync(join(target, MARK), `${JSON.stringify(mark)}\n`);
  return `Server ${id} wrote its backup to ${target} while it went on serving.`;
}

/** @returns what was done, for a person */
export function restore(dir: string, server: string, from: string, replace: boolean): string {
  const source = resolve(from);
  if (!existsSync(join(source, MARK)) || !existsSync(join(source, STORE))) {
    throw new Failure(`${source} is no backup made by "dyad backup" (there is no ${MARK}).`);
  }
  const mark = JSON.parse(readFileSync(join(source, MARK), "utf8")) as BackupMark;
  const target = join(dir, server);
  mkdirSync(target, { recursive: true });
  const running = lockHolder(join(target, "agent.lock"));
  if (running !== undefined) {
    throw new Failure(`Server ${server} is running (pid ${running}); stop it before a restore.`);
  }
  const store = join(target, STORE);
  let kept = "";
  if (existsSync(store)) {
    if (!replace) {
      throw new Failure(
        `${store} exists. With --replace it is moved to ${store}.before-restore and the backup takes ` +
          `its place.`,
      );
    }
    kept = `${store}.before-restore`;
    if (existsSync(kept)) {
      throw new Failure(`${kept} is still there from an earlier restore; move or delete it first.`);
    }
  }
  // The copy is made whole beside the store before anything that is there is touched.
  const fresh = `${store}.restoring`;
  rmSync(fresh, { recursive: true, force: true });
  cpSync(join(source, STORE), fresh, { recursive: true, errorOnExist: true, force: false });
  rmSync(join(target, "identity"), { force: true });
  rmSync(join(target, "boot.json"), { force: true });
  if (kept !== "") renameSync(store, kept);
  renameSync(fresh, store);
  return (
    `Server ${server} holds the backup of ${mark.at} (taken from ${mark.server}).` +
    (kept === "" ? "" : ` What it held before is in ${kept}.`) +
    `\nIt is a new disk to the pair: start it, and it is brought up to date by the other server.` +
    `\nIf no other server has the data any more: dyad force ${server}.`
  );
}
