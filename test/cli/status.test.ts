import { describe, expect, test } from "vitest";
import {
  formatStatus,
  type PairStatus,
  parseStatus,
  type ServerStatus,
  statusExit,
} from "../../client/cli/status.js";

function server(id: string, changes: Partial<ServerStatus> = {}): ServerStatus {
  const role = id === "a" ? "primary" : "standby";
  const idle = { lagEntries: 0, loadPermille: 120, serviceUs: 80, inFlight: 0 };
  return { id, role, up: true, inSync: true, ...idle, ...changes };
}

function pair(changes: Partial<PairStatus> = {}): PairStatus {
  const servers = [server("a"), server("b")];
  return { epoch: 7, primary: "a", mode: "both", servers, why: "", ...changes };
}

describe("the exit status of dyad status", () => {
  test("0 while any one server may fail", () => {
    expect(statusExit(pair())).toBe(0);
  });

  test("1 while it serves without redundancy", () => {
    expect(statusExit(pair({ mode: "solo" }))).toBe(1);
    expect(statusExit(pair({ servers: [server("a"), server("b", { up: false })] }))).toBe(1);
    expect(statusExit(pair({ servers: [server("a"), server("b", { inSync: false })] }))).toBe(1);
  });

  test("2 when it cannot serve", () => {
    expect(statusExit(pair({ primary: null }))).toBe(2);
    expect(statusExit(pair({ servers: [server("a", { up: false }), server("b")] }))).toBe(2);
    // The primary's machine is there, but with another disk: the controller waits.
    expect(statusExit(pair({ state: "waiting" }))).toBe(2);
    expect(statusExit(pair({ state: "both" }))).toBe(0);
    expect(statusExit(pair({ state: "writing" }))).toBe(0);
  });
});

describe("what dyad status prints", () => {
  test("a person reads the state, the reason, and a line a server", () => {
    const text = formatStatus(
      pair({
        mode: "solo",
        why: "b does not answer since 12 s",
        servers: [server("a"), server("b", { up: false, inSync: false, lagEntries: 40 })],
      }),
    );
    expect(text).toMatchInlineSnapshot(`
      "serving, but not redundant: primary a, mode solo, epoch 7
      why: b does not answer since 12 s

      server  role     state        behind  load  service  in flight
      a       primary  in sync           0   12%    80 us          0
      b       standby  down             40   12%    80 us          0"
    `);
  });

  test("an answer that is no status is refused", () => {
    expect(() => parseStatus("{}")).toThrow(/not a status/);
    expect(() => parseStatus("unknown command")).toThrow();
  });
});
