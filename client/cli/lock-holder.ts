/** Which process runs a node, as the lock file in the node's directory says. */
import { readFileSync } from "node:fs";

function readText(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

/** True while this very process runs, and not another that got its number later. */
function isProcess(pid: number, start: string): boolean {
  const stat = readText(`/proc/${pid}/stat`);
  if (stat !== "") {
    // The program's name may hold blanks and parentheses, so fields are counted from its last ")".
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] !== "Z" && fields[19] === start;
  }
  if (start !== "unknown") return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/**
 * @param path a lock file: pid, start time and boot of the process that holds it
 * @returns its pid; undefined when nobody holds it, though a killed node may have left it behind
 */
export function lockHolder(path: string): number | undefined {
  const [pidText, start, boot] = readText(path).trim().split(" ");
  const pid = Number(pidText);
  if (!Number.isSafeInteger(pid) || pid <= 1 || start === undefined) return undefined;
  const thisBoot = readText("/proc/sys/kernel/random/boot_id").trim();
  if (thisBoot !== "" && boot !== thisBoot) return undefined;
  return isProcess(pid, start) ? pid : undefined;
}
