/**
 * One controller for one flash directory: two would write two records of one epoch. The lock is a file that
 * names the process by pid, start time and boot, so that what a killed one left behind is told from one that runs.
 */
import { linkSync, readFileSync, renameSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const ATTEMPTS_MAX = 5;

/** Another controller uses the directory; the message is for a person. */
export class DirectoryInUse extends Error {}

function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return "unknown";
  }
}

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

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

function isHeld(text: string): boolean {
  const [pidText, start, boot] = text.trim().split(" ");
  const pid = Number(pidText);
  if (!Number.isSafeInteger(pid) || pid <= 0 || boot !== bootId()) return false;
  return processStart(pid) === start;
}

/**
 * Takes the lock of a directory until the process ends.
 * @throws DirectoryInUse when another process holds it
 */
export function lockDirectory(dir: string): { release(): void } {
  const path = join(dir, "controller.lock");
  const mine = `${process.pid} ${processStart(process.pid)} ${bootId()}\n`;
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    try {
      writeFileSync(path, mine, { flag: "wx", mode: 0o600 });
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
        `${dir} is in use by another controller (pid ${found.split(" ")[0]}). ` +
          `Stop that one first, or give this one a directory of its own.`,
      );
    }
    // Whoever renames the stale file owns its removal. If a rival was quicker, what was renamed is the
    // rival's fresh lock, and goes back.
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
  throw new DirectoryInUse(`${dir} is being taken by several controllers at once; start one.`);
}
