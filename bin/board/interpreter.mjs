/**
 * How Espruino's interpreter is started on a desktop.
 *
 * Its Linux build has two threads at one queue of events: one puts in what comes on the console and on serial lines, the
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

/** @returns whether a program of that name is on PATH */
export function isOnPath(name) {
  return spawnSync("sh", ["-c", `command -v ${name}`]).status === 0;
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
