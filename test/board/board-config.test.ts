import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { parseBoard } from "../../bin/board/board-config.mjs";
import { bundleBoard } from "../../bin/board/bundle.mjs";
import { lintBundle, lintLengths } from "../../bin/board/engine-lint.mjs";
import { defaultTimings } from "../../firmware/core/config.js";
import type { Timings } from "../../firmware/core/config.js";
import { checkLimits, defaultLimits } from "../../firmware/core/limits.js";
import type { Limits } from "../../firmware/core/limits.js";

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

interface Raw {
  [field: string]: unknown;
  keyFile?: string | undefined;
  key?: string;
  ports: Record<string, unknown>;
  slots: Record<string, unknown>;
  hardware: Record<string, unknown>;
  timings: Timings;
  limits: Limits;
}

function raw(name = "espruino-linux"): Raw {
  const file = join(ROOT, "board-configs", `${name}.json`);
  const fields = JSON.parse(readFileSync(file, "utf8")) as Raw;
  delete fields.keyFile;
  fields.key = "00".repeat(32);
  return fields;
}

describe("a board's configuration", () => {
  test.each(["espruino-linux", "iotjs-linux"])(
    "%s has every timing and limit of the core",
    (name) => {
      const fields = raw(name);
      expect(Object.keys(fields.timings).sort()).toEqual(Object.keys(defaultTimings()).sort());
      expect(Object.keys(fields.limits).sort()).toEqual(Object.keys(defaultLimits()).sort());
      expect(() => checkLimits(fields.timings, fields.limits)).not.toThrow();
      expect(() => parseBoard(fields, "x.json")).not.toThrow();
    },
  );

  test("a wrong value: the field, the value and what is allowed", () => {
    const fields = raw();
    fields.ports.link = 70000;
    expect(() => parseBoard(fields, "x.json")).toThrow(
      /x\.json.*\n.*"ports\.link" is 70000.*65535/s,
    );
  });

  test("a field nobody knows: what is allowed there", () => {
    const fields = raw();
    fields.ports.rediss = 1;
    expect(() => parseBoard(fields, "x.json")).toThrow(/"ports\.rediss".*redis, native, link/s);
  });

  test("more sockets than the network chip has", () => {
    const fields = raw();
    fields.hardware.sockets = 8;
    expect(() => parseBoard(fields, "x.json")).toThrow(/19 sockets.*the network chip has 8/s);
  });

  test.each<[string, (fields: Raw) => void, RegExp]>([
    [
      "network.chip",
      (fields) => (fields.network = { chip: "wifi", ssid: "x", password: "y" }),
      /"network\.chip" is "wifi".*host/s,
    ],
    [
      "hardware.consoleDevice",
      (fields) => (fields.hardware.consoleDevice = "USB"),
      /"hardware\.consoleDevice" is "USB".*tcp:PORT.*path/s,
    ],
    [
      "hardware.consoleDevice",
      (fields) => (fields.hardware.consoleDevice = "tcp:70000"),
      /"hardware\.consoleDevice" is "tcp:70000".*65535/s,
    ],
    [
      "hardware.variables",
      (fields) => (fields.hardware.variables = 8190),
      /"hardware\.variables" is 8190.*0/s,
    ],
    ["engine", (fields) => (fields.engine = "jerry"), /"engine" is "jerry".*espruino.*iotjs/s],
    [
      "hardware.watchdogSeconds",
      (fields) => (fields.hardware.watchdogSeconds = 99),
      /"hardware\.watchdogSeconds" is 99.*30/s,
    ],
    ["slots.redis", (fields) => (fields.slots.redis = 0), /"slots\.redis" is 0.*at least 1/s],
  ])("iotjs-linux with a wrong %s", (_field, spoil, message) => {
    const fields = raw("iotjs-linux");
    expect(() => parseBoard(fields, "x.json")).not.toThrow();
    spoil(fields);
    expect(() => parseBoard(fields, "x.json")).toThrow(message);
  });

  test("a console of one engine on another", () => {
    const fields = raw();
    fields.hardware.consoleDevice = "tcp:6385";
    expect(() => parseBoard(fields, "x.json")).toThrow(/"tcp:6385".*espruino.*Serial1/s);
  });

  test("a key is not shown", () => {
    const fields = raw();
    fields.key = "secret";
    expect(() => parseBoard(fields, "x.json")).toThrow(/"key" is \(not shown\)/);
  });

  test("the bundle has nothing the engine is known to fail on", async () => {
    const { text, named } = await bundleBoard(ROOT, "espruino-linux", parseBoard(raw(), "x.json"));
    expect(lintBundle(text)).toEqual([]);
    expect(lintLengths(named)).toEqual([]);
  });

  test("every part that a build may leave out is decided by the build of every engine", () => {
    const text = (path: string): string => readFileSync(join(ROOT, path), "utf8");
    const names = [...text("firmware/core/features.ts").matchAll(/^export const (\w+):/gm)];
    expect(names.length).toBeGreaterThan(5);
    for (const [, name] of names) {
      for (const build of ["bin/board/bundle.mjs", "bin/board/bundle-iotjs.mjs"]) {
        expect(text(build), build).toMatch(new RegExp(`^    ${name}:`, "m"));
      }
    }
  });

  test("fencing lines without a policy, a policy without lines, a line on an engine without pins", () => {
    const line = { output: "D25", input: "D34" };
    const policy = { policy: "failover", offMs: 0, readBackMs: 100 };
    const withLine = (fields: Raw): Raw => {
      (fields["servers"] as Record<string, unknown>[])[0]!["fence"] = line;
      return fields;
    };
    expect(() => parseBoard(withLine(raw()), "F")).toThrow(/field "fencing" is missing/);
    expect(() => parseBoard({ ...raw(), fencing: policy }, "F")).toThrow(/no server has a line/);
    expect(() => parseBoard(withLine({ ...raw("iotjs-linux"), fencing: policy }), "F")).toThrow(
      /field "fencing" is .*its home has no pins yet/,
    );
    expect(() => parseBoard(withLine({ ...raw(), fencing: policy }), "F")).not.toThrow();
  });

  test("serial lines: the console's UART, or one UART twice, is refused by its field", () => {
    const fields = raw();
    fields.hardware["consoleDevice"] = "Serial1";
    const servers = fields["servers"] as Record<string, unknown>[];
    servers[0]!["serial"] = { device: "Serial1" };
    expect(() => parseBoard(fields, "x.json")).toThrow(
      'field "servers.0.serial.device" is "Serial1", as hardware.consoleDevice is',
    );
    servers[0]!["serial"] = { device: "Serial2" };
    servers[1]!["serial"] = { device: "Serial3" };
    fields["clientLine"] = { device: "Serial3" };
    expect(() => parseBoard(fields, "x.json")).toThrow(
      'field "clientLine.device" is "Serial3", as servers.1.serial.device is',
    );
    fields["clientLine"] = { device: "COM3" };
    expect(() => parseBoard(fields, "x.json")).toThrow(/"clientLine.device" is "COM3": a UART/);
    fields["clientLine"] = { device: "Serial4" };
    expect(() => parseBoard(fields, "x.json")).not.toThrow();
    const jerry = raw("iotjs-linux") as Record<string, unknown>;
    jerry["clientLine"] = { device: "Serial4" };
    expect(() => parseBoard(jerry, "x.json")).toThrow(
      /"clientLine.path" is missing: with engine iotjs/,
    );
    jerry["clientLine"] = { device: "Serial4", path: "/dev/ttyS4" };
    expect(() => parseBoard(jerry, "x.json")).not.toThrow();
  });
});
