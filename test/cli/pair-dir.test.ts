import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { readConfig } from "../../agent/config.js";
import {
  parseConfig as parseControllerConfig,
  readConfig as readControllerConfig,
} from "../../firmware/node-config.js";
import { Failure } from "../../client/cli/failure.js";
import { preparePair, shellCommand } from "../../client/cli/pair-dir.js";

function freshDir(): string {
  return mkdtempSync(join(tmpdir(), "dyad-pair-"));
}

function everyPort(plan: Awaited<ReturnType<typeof preparePair>>): number[] {
  const { redis, native, link, a, b } = plan.pair;
  return [redis, native, link, a.peer, a.udp, a.local, b.peer, b.udp, b.local];
}

describe("the directory of a pair", () => {
  test("ports are all different, and the same the next time", async () => {
    const dir = freshDir();
    const first = await preparePair(dir, 0, undefined);
    expect(new Set(everyPort(first)).size).toBe(9);
    const second = await preparePair(dir, 0, undefined);
    expect(everyPort(second)).toEqual(everyPort(first));
  });

  test("the agents accept the configurations written for them, and they fit each other", async () => {
    const dir = freshDir();
    const plan = await preparePair(dir, 0, "memory");
    const a = readConfig(join(dir, "a.json"));
    const b = readConfig(join(dir, "b.json"));
    expect([a.durability, b.durability]).toEqual(["memory", "memory"]);
    expect([a.preset, b.preset]).toEqual([true, false]);
    expect(a.peer.port).toBe(b.peerPort);
    expect(b.peer.port).toBe(a.peerPort);
    expect(a.controller.linkPort).toBe(plan.pair.link);
    expect(Buffer.from(a.pairKey).equals(Buffer.from(b.pairKey))).toBe(true);
    expect(statSync(join(dir, "pair.key")).mode & 0o077).toBe(0);
  });

  test("the controller accepts the configuration written for it, and the board file it is made from", async () => {
    const dir = freshDir();
    const plan = await preparePair(dir, 0, undefined);
    const written = readControllerConfig(join(dir, "controller.json"));
    expect(written.redisPort).toBe(plan.pair.redis);
    expect(written.servers.map((server) => server.udpPort)).toEqual([
      plan.pair.a.udp,
      plan.pair.b.udp,
    ]);
    const board = new URL("../../board-configs/linux-node.json", import.meta.url);
    const raw = JSON.parse(readFileSync(board, "utf8")) as Record<string, unknown>;
    const settings = parseControllerConfig(
      { ...raw, keyFile: join(dir, "pair.key") },
      fileURLToPath(board),
    );
    expect(settings.redisPort).toBe(6380);
  });

  test("what was chosen is kept until something else is asked for", async () => {
    const dir = freshDir();
    await preparePair(dir, 0, "memory");
    expect((await preparePair(dir, undefined, undefined)).pair.durability).toBe("memory");
    expect((await preparePair(dir, undefined, "disk")).pair.durability).toBe("disk");
  });

  test("a wanted port that is in use is an error that says what to do", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((ready) => server.once("listening", ready));
    const { port } = server.address() as { port: number };
    const failed = await preparePair(freshDir(), port, undefined).catch((error: unknown) => error);
    server.close();
    expect(failed).toBeInstanceOf(Failure);
    expect((failed as Failure).exitCode).toBe(4);
    expect((failed as Failure).message).toContain(`Port ${port}`);
    expect((failed as Failure).message).toContain("--port");
  });

  test("a damaged pair.json is named, and says that the data is safe", async () => {
    const dir = freshDir();
    writeFileSync(join(dir, "pair.json"), "{");
    await expect(preparePair(dir, 0, undefined)).rejects.toThrow(
      /pair\.json is damaged.*data is kept/,
    );
    writeFileSync(join(dir, "pair.json"), '{"format":9}');
    await expect(preparePair(dir, 0, undefined)).rejects.toThrow(/format 9/);
    expect(readFileSync(join(dir, "pair.json"), "utf8")).toBe('{"format":9}');
  });
});

describe("a printed command", () => {
  test("is read by a shell as the words it was made of", () => {
    const words = ["/usr/bin/printf", "%s|", "plain", "two words", "it's", '$HOME `x` "y"', "*"];
    const out = execFileSync("/bin/sh", ["-c", shellCommand(words)], { encoding: "utf8" });
    expect(out).toBe(`${words.slice(2).join("|")}|`);
  });
});
