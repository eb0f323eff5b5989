/** bounded: nothing grows without limit, whatever happens. Sampled while the world runs. */
import type { Machine } from "../world/machine.js";
import type { Disk } from "../world/disk.js";
import type { Finding } from "./checker.js";

/** With the little that clients send here, none of these is reached unless something leaks. */
const CONNECTIONS_MAX = 64;
const PENDING_BYTES_MAX = 4 * 1024 * 1024;
const COMMITS_MAX = 500;
const DISK_BYTES_MAX = 8 * 1024 * 1024;

export function checkBounded(
  machines: readonly Machine[],
  disks: readonly Disk[],
): Finding | undefined {
  for (const machine of machines) {
    let open = 0;
    for (const end of machine.ends) {
      if (end === undefined) continue;
      open++;
      if (end.pendingBytes > PENDING_BYTES_MAX) {
        return found(
          `${machine.name} has ${end.pendingBytes} bytes waiting for ${end.peer.machine.name}`,
        );
      }
    }
    // What comes while a process hangs waits in its kernel, which has bounds of its own.
    if (open > CONNECTIONS_MAX && machine.state !== "hung")
      return found(`${machine.name} holds ${open} connections`);
  }
  for (const [i, disk] of disks.entries()) {
    const name = i === 0 ? "a" : "b";
    if (disk.pendingCommits > COMMITS_MAX)
      return found(`${name} has ${disk.pendingCommits} commits open`);
    const bytes = disk.content.usage().usedBytes;
    if (bytes > DISK_BYTES_MAX) return found(`${name} holds ${bytes} bytes on disk`);
  }
  return undefined;
}

function found(what: string): Finding {
  return { promise: "bounded", what };
}
