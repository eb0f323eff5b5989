/**
 * How an interpreter is started on a desktop.
 *
 * Espruino's Linux build has two threads at one queue of events: one puts in what comes on the console and on serial lines, the
 * other takes it out. On a board the first is an interrupt on the only processor, and the queue is made for that; on two
 * processors the threads now and then corrupt it: input is lost, or all of the last kilobyte comes again. So it gets one.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";

/** The numbers in a list such as "0-3,8". */
function numbersOf(list) {
  return list.split(",").flatMap((part) => {
    const [from, to = from] = part.split("-").map(Number);
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
  });
}

let taskset;

/** @returns where PATH has a program of that name, "" where nowhere */
export function pathOf(name) {
  return spawnSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).stdout.trim();
}

/** @returns whether a program of that name is on PATH */
export function isOnPath(name) {
  return pathOf(name) !== "";
}

/**
 * @param command program and arguments
 * @returns the same on one processor, where `taskset` is there to do it
 */
export function onOneProcessor(command) {
  taskset ??= isOnPath("taskset");
  if (!taskset) return command;
  const list = /^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync("/proc/self/status", "utf8"));
  if (list === null) return command;
  const processors = numbersOf(list[1]);
  // Others on this machine, started by other processes, shall not all have the same one.
  return ["taskset", "-c", String(processors[process.pid % processors.length]), ...command];
}

/**
 * A child that must not outlive this process, however that ends: neither interpreter ends with its input. A shell beside
 * it waits at a pipe of which only this process holds the other end. A line in it says that the child has ended.
 */
const GUARD =
  '{ read -r _ <&3 || kill -9 $$; } 3<&3 </dev/null >/dev/null 2>&1 & exec 3<&-; exec "$@"';
/** Which of the child's streams the pipe is. */
export const GUARD_STREAM = 3;

/** @returns a command that becomes the given one (the same process) and is killed when the pipe at GUARD_STREAM breaks */
export function guarded(command) {
  return ["sh", "-c", GUARD, "sh", ...command];
}

/** Once its child has ended: nothing is to be killed any more. */
export function releaseGuard(child) {
  child.once("exit", () => child.stdio[GUARD_STREAM]?.end("\n"));
  child.stdio[GUARD_STREAM]?.on("error", () => undefined);
}
