import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ConfigError, nearestName, parseConfig, readConfig } from "../../agent/config.js";

const KEY = "00112233445566778899aabbccddeeff";

function good(): Record<string, unknown> {
  return {
    id: "a",
    servers: ["a", "b"],
    dir: "data",
    controller: { host: "127.0.0.1", linkPort: 7000, clientPort: 6380 },
    peer: { host: "127.0.0.1", port: 7001 },
    peerPort: 7002,
    udpPort: 7003,
    key: KEY,
  };
}

function errorOf(raw: unknown): string {
  try {
    parseConfig(raw, "/etc/dyad/a.json");
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as Error).message;
  }
  throw new Error("the configuration was accepted");
}

describe("the agent's configuration", () => {
  test("a whole one is accepted, with defaults and paths beside the file", () => {
    const settings = parseConfig(good(), "/etc/dyad/a.json");
    expect(settings.dir).toBe("/etc/dyad/data");
    expect(settings.durability).toBe("disk");
    expect(settings.index).toBe(0);
    expect(settings.peerId).toBe("b");
    expect(Buffer.from(settings.pairKey).toString("hex")).toBe(KEY);
  });

  test("a misspelled field is named, with the field that was meant", () => {
    const raw = { ...good(), durabilty: "memory" };
    expect(errorOf(raw)).toContain('unknown field "durabilty"; did you mean "durability"?');
    expect(errorOf(raw)).toContain("/etc/dyad/a.json");
  });

  test("a misspelled field of an inner object is named with its place", () => {
    const raw = { ...good(), controller: { host: "h", linkPort: 1, clientPort: 2, linkport: 3 } };
    expect(errorOf(raw)).toContain('unknown field "controller.linkport"; did you mean "linkPort"?');
  });

  test("an unknown field like none lists what is allowed", () => {
    expect(errorOf({ ...good(), colour: "red" })).toMatch(/"colour"; allowed here: id, servers/);
  });

  test("a wrong value is shown with what is allowed", () => {
    expect(errorOf({ ...good(), durability: "tape" })).toMatch(
      /field "durability" is "tape": .*"disk".*"memory"/,
    );
    expect(errorOf({ ...good(), udpPort: 70000 })).toMatch(/field "udpPort" is 70000: .*65535/);
    expect(errorOf({ ...good(), peerPort: "7002" })).toMatch(
      /field "peerPort" is "7002": .*number/,
    );
  });

  test("a missing field is named", () => {
    const raw = good();
    delete raw["peer"];
    expect(errorOf(raw)).toContain('field "peer" is missing');
  });

  test("an id outside the pair, and a pair of one name, are refused", () => {
    expect(errorOf({ ...good(), id: "c" })).toContain('field "id" is "c"; allowed: one of');
    expect(errorOf({ ...good(), servers: ["a", "a"] })).toContain('names "a" twice');
  });

  test("a wrong key is never printed", () => {
    const text = errorOf({ ...good(), key: "feedface" });
    expect(text).toContain('field "key"');
    expect(text).not.toContain("feedface");
  });

  test("key and keyFile: exactly one, and the file must hold a key", () => {
    const none = good();
    delete none["key"];
    expect(errorOf(none)).toContain('exactly one of "key" and "keyFile"');
    expect(errorOf({ ...none, keyFile: "missing.key" })).toContain(
      "/etc/dyad/missing.key cannot be read",
    );
    const dir = mkdtempSync(join(tmpdir(), "dyad-config-"));
    writeFileSync(join(dir, "bad.key"), "xyz\n");
    expect(errorOf({ ...none, keyFile: join(dir, "bad.key") })).toContain(
      "must hold 16 to 64 bytes",
    );
    writeFileSync(join(dir, "good.key"), `${KEY}\n`);
    const settings = parseConfig({ ...none, keyFile: "good.key" }, join(dir, "a.json"));
    expect(Buffer.from(settings.pairKey).toString("hex")).toBe(KEY);
  });

  test("a file that is missing or is not JSON is named", () => {
    const dir = mkdtempSync(join(tmpdir(), "dyad-config-"));
    const path = join(dir, "a.json");
    expect(() => readConfig(path)).toThrow(`${path} cannot be read`);
    writeFileSync(path, "{");
    expect(() => readConfig(path)).toThrow(`${path} is not JSON`);
  });

  test("bounds are set by name, and must fit together", () => {
    const settings = parseConfig(
      { ...good(), limits: { valueBytesMax: 2048 }, timings: { stallMs: 700 } },
      "/etc/dyad/a.json",
    );
    expect(settings.bounds.valueBytesMax).toBe(2048);
    expect(settings.bounds.stallMs).toBe(700);
    expect(errorOf({ ...good(), timings: { stalMs: 700 } })).toContain(
      'unknown field "timings.stalMs"; did you mean "stallMs"?',
    );
    expect(errorOf({ ...good(), timings: { peerSilentMs: 60 } })).toMatch(/do not fit together/);
  });

  test("the nearest name is only given when it is near", () => {
    expect(nearestName("stalMs", ["stallMs", "redialMs"])).toBe("stallMs");
    expect(nearestName("zebra", ["stallMs", "redialMs"])).toBeUndefined();
  });
});
