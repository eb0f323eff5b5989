/**
 * Fencing lines: for each server an output to its power or its reset, and an input that reads back whether it runs.
 *
 *     safe ── told to ──> armed ── a turn later, still failed ──> firing ── reads back off ──> off ── offMs ──> safe
 *                           └── it works again: safe                └── readBackMs: output off, "failed"
 *
 * Arming and firing are two turns, so that no single event cuts a server's power. Outputs are off at boot and after
 * every end. A fence counts only while the input says that the server is off.
 *
 * Nothing waits for a fence while all clients come through the controller: the epoch keeps a failed primary from
 * answering (G3), fenced or not. It is for what does not come through here: a server's own port, other programs on it,
 * and a machine that hangs until somebody resets it.
 */
import { FENCE } from "./deadlines.js";
import type { Deadlines } from "./deadlines.js";
import { FAULT_NONE } from "./fault-monitor.js";
import { WITH_FENCING } from "./features.js";
import { idOf } from "./pair.js";
import type { Pair } from "./pair.js";
import type { ControllerPorts } from "./ports.js";
import { LEVEL_ERROR, LEVEL_INFO, LEVEL_WARN } from "./trace.js";
import type { ServerIndex } from "../../protocol/record.js";

export interface FencingConfig {
  /** `failover`: a primary that was failed over from, and on the operator's word; `operator`: on that alone. */
  policy: "failover" | "operator";
  /** Which servers have a line. */
  lines: [boolean, boolean];
  /** A server is held off for so long; 0: until the operator releases it. @unit ms */
  offMs: number;
  /** Time the input has to say that the server is off. @unit ms */
  readBackMs: number;
}

export interface Fencing {
  /** The pair has gone on without its former primary. */
  failedOver(former: ServerIndex, now: number): void;
  /** The operator's word, to be said twice. @returns the answer, for people */
  order(server: ServerIndex, now: number): string[];
  release(server: ServerIndex, now: number): string;
  tick(now: number): void;
  /** One line for people; "" where there is no line to the server. */
  text(server: ServerIndex, now: number): string;
}

type LineState = "safe" | "armed" | "firing" | "off" | "failed";

interface Line {
  state: LineState;
  /** When it came to that state. */
  since: number;
  /** Why it was armed. */
  because: string;
  /** The operator has said it once; -Infinity: not lately. */
  askedAt: number;
}

/** How often the input is looked at while the output is on. @unit ms */
const LOOK_MS = 10;

type Note = (level: number, event: string, text: string, now: number) => void;

const NO_LINES: Fencing = {
  failedOver: function (): void {},
  order: function (): string[] {
    return ["refused: this controller has no fencing lines"];
  },
  release: function (): string {
    return "refused: this controller has no fencing lines";
  },
  tick: function (): void {},
  text: function (): string {
    return "";
  },
};

/** @param note one event for the console and the black box */
export function fencingOf(
  pair: Pair,
  ports: ControllerPorts,
  deadlines: Deadlines,
  note: Note,
): Fencing {
  const config = pair.config.fencing;
  if (!WITH_FENCING || config === undefined) return NO_LINES;
  return createFencing(pair, config, ports, deadlines, note);
}

function createFencing(
  pair: Pair,
  config: FencingConfig,
  ports: ControllerPorts,
  deadlines: Deadlines,
  note: Note,
): Fencing {
  const lines: Line[] = [];
  for (let i = 0; i < 2; i++) {
    lines.push({ state: "safe", since: 0, because: "", askedAt: -Infinity });
    if (config.lines[i]) ports.fence!(i === 0 ? 0 : 1, false);
  }

  function enter(server: ServerIndex, state: LineState, now: number): void {
    lines[server].state = state;
    lines[server].since = now;
    schedule(now);
  }

  function schedule(now: number): void {
    let next = Infinity;
    for (let i = 0; i < 2; i++) {
      const state = lines[i].state;
      if (state === "armed" && now < next) next = now;
      if ((state === "firing" || state === "off") && now + LOOK_MS < next) next = now + LOOK_MS;
    }
    if (next === Infinity) deadlines.clear(FENCE);
    else deadlines.set(FENCE, next);
  }

  function isFailed(server: ServerIndex): boolean {
    return pair.servers[server].fault !== FAULT_NONE;
  }

  function arm(server: ServerIndex, because: string, now: number): void {
    lines[server].because = because;
    lines[server].askedAt = -Infinity;
    enter(server, "armed", now);
    note(LEVEL_WARN, "fence armed", idOf(pair, server) + ": " + because, now);
  }

  function failedOver(former: ServerIndex, now: number): void {
    if (config.policy !== "failover" || !config.lines[former] || !isFailed(former)) return;
    const state = lines[former].state;
    if (state === "safe" || state === "failed") arm(former, "it was failed over from", now);
  }

  function off(server: ServerIndex, state: LineState, now: number): void {
    ports.fence!(server, false);
    enter(server, state, now);
  }

  function step(server: ServerIndex, now: number): void {
    const line = lines[server];
    const id = idOf(pair, server);
    switch (line.state) {
      case "armed":
        if (!isFailed(server)) {
          enter(server, "safe", now);
          note(LEVEL_INFO, "fence disarmed", id + " works again", now);
          return;
        }
        ports.fence!(server, true);
        enter(server, "firing", now);
        note(LEVEL_WARN, "fence fired", id + ": " + line.because, now);
        return;
      case "firing":
        if (!ports.powered!(server)) {
          const tookMs = Math.round(now - line.since);
          enter(server, "off", now);
          note(LEVEL_WARN, "fenced", id + " is off, read back after " + tookMs + " ms", now);
        } else if (now >= line.since + config.readBackMs) {
          off(server, "failed", now);
          note(
            LEVEL_ERROR,
            "fence failed",
            id + " still reads back on after " + config.readBackMs + " ms; look at its fence line",
            now,
          );
        }
        return;
      case "off":
        if (ports.powered!(server)) {
          off(server, "failed", now);
          note(LEVEL_ERROR, "fence failed", id + " reads back on although it is held off", now);
        } else if (config.offMs > 0 && now >= line.since + config.offMs) {
          off(server, "safe", now);
          note(LEVEL_INFO, "fence released", id + " may start again", now);
        }
        return;
      default:
        return;
    }
  }

  function tick(now: number): void {
    if (!deadlines.due(FENCE, now)) return;
    step(0, now);
    step(1, now);
    schedule(now);
  }

  function whyNot(server: ServerIndex): string {
    const id = idOf(pair, server);
    const state = lines[server].state;
    if (!config.lines[server]) return "no fencing line leads to " + id;
    if (state !== "safe" && state !== "failed") return "the fence of " + id + " is " + state;
    if (!isFailed(server)) return id + " works: stop it there, or make the other one primary first";
    return "";
  }

  function order(server: ServerIndex, now: number): string[] {
    const why = whyNot(server);
    if (why !== "") return ["refused: " + why];
    const id = idOf(pair, server);
    const line = lines[server];
    const repeatMs = pair.config.timings.repeatMs;
    if (now - line.askedAt <= repeatMs) {
      arm(server, "the operator asked for it", now);
      return ["firing the fence of " + id + "; `fence` shows whether it is off"];
    }
    line.askedAt = now;
    const answer = [
      "This would switch " +
        id +
        " off" +
        (config.offMs > 0
          ? " for " + config.offMs / 1000 + " s."
          : " until you say: fence " + id + " release"),
    ];
    if (pair.record !== undefined && pair.record.primary === server) {
      answer.push(
        id +
          " is primary: what is in its memory alone would be lost (with durability disk that is nothing it has acknowledged).",
      );
    }
    answer.push(
      "Say the same again within " + Math.round(repeatMs / 1000) + " s to do it: fence " + id,
    );
    return answer;
  }

  function release(server: ServerIndex, now: number): string {
    const id = idOf(pair, server);
    const state = lines[server].state;
    if (state !== "off" && state !== "firing" && state !== "armed") {
      return "refused: the fence of " + id + " is " + state;
    }
    off(server, "safe", now);
    note(LEVEL_INFO, "fence released", id + " may start again", now);
    return id + " may start again";
  }

  function text(server: ServerIndex, now: number): string {
    if (!config.lines[server]) return "";
    const line = lines[server];
    const input = ports.powered!(server) ? "reads back on" : "reads back off";
    if (line.state === "safe") return "fence: safe, " + input;
    return (
      "fence: " +
      line.state +
      " for " +
      Math.round((now - line.since) / 1000) +
      " s, " +
      input +
      " (" +
      line.because +
      ")"
    );
  }

  return {
    failedOver: failedOver,
    order: order,
    release: release,
    tick: tick,
    text: text,
  };
}
