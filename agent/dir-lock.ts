/**
 * One agent for one directory. The lock is a file that names the process by pid, start time and boot,
 * so that what a killed agent left behind is told from an agent that still runs.
 */
import {
  closeSync,
  linkSync,
  openSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { bootId } from "./identity.js";

const ATTEMPTS_MAX = 5;

/** Another agent uses the directory; the message is for a person. */
export class DirectoryInUse extends Error {}

/** When a process began, in the kernel's ticks since boot; "" when there is no such process. */
function processStart(pid: number): string {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The program's name may hold blanks and parentheses, so fields are counted from its last ")".
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    // A zombie holds nothing any more.
    return fields[0] === "Z" ? "" : fields[19]!;
  } catch {
    try {
      process.kill(pid, 0);
      return "unknown";
    } catch {
      return "";
    }
  }
}

function isHeld(text: string): boolean {
  const [pidText, start, boot] = text.trim().split(" ");
  const pid = Number(pidText);
  if (!Number.isSafeInteger(pid) || pid <= 0 || boot !== bootId()) return false;
  return processStart(pid) === start;
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/**
 * Takes the lock of a directory until the process ends.
 * @throws DirectoryInUse when another process holds it
 */
export function lockDirectory(dir: string): { release(): void } {
  const path = join(dir, "agent.lock");
  const mine = `${process.pid} ${processStart(process.pid)} ${bootId()}\n`;
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    try {
      const file = openSync(path, "wx", 0o600);
      writeSync(file, mine);
      closeSync(file);
      return {
        release() {
          if (readText(path) === mine) unlinkSync(path);
        },
      };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    const found = readText(path);
    if (found === undefined) continue;
    if (isHeld(found)) {
      throw new DirectoryInUse(
        `${dir} is in use by another agent (pid ${found.split(" ")[0]}). ` +
          `Stop that one first, or give this one a directory of its own.`,
      );
    }
    // Whoever renames the stale file owns its removal. If a rival was quicker, what was renamed is
    // the rival's fresh lock, and goes back.
    const aside = `${path}.${process.pid}`;
    try {
      renameSync(path, aside);
    } catch {
      continue;
    }
    if (readText(aside) !== found) {
      try {
        linkSync(aside, path);
      } catch {
        // A third one is there already; the next round judges it.
      }
    }
    unlinkSync(aside);
  }
  throw new DirectoryInUse(`${dir} is being taken by several agents at once; start one.`);
}
