/** The start of a board's network, against fakes of the engine's modules: what is called, in which order, with what. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { BoardNetwork } from "../../hal/espruino/engine.js";
import { startNetwork as startHost } from "../../hal/espruino/network-host.js";
import { startNetwork as startWifi } from "../../hal/espruino/network-wifi.js";
import { startNetwork as startWiznet } from "../../hal/espruino/network-wiznet.js";

const globals = globalThis as unknown as Record<string, unknown>;
let calls: string[] = [];
const told = {
  onReady: () => calls.push("ready"),
  onLost: (reason: string) => calls.push(`lost ${reason}`),
  onError: (reason: string) => calls.push(`error ${reason}`),
};

class FakePin {
  constructor(readonly name: string) {}
  write(value: boolean): void {
    calls.push(`${this.name}=${Number(value)}`);
  }
}

beforeEach(() => {
  vi.useFakeTimers();
  calls = [];
  globals.global = globalThis;
  for (const name of ["A1", "A5", "A6", "A7", "B1"]) globals[name] = new FakePin(name);
  globals.SPI1 = {
    setup: (options: Record<string, { name: string } | number>) => {
      const wires = ["sck", "miso", "mosi"].map((wire) => (options[wire] as { name: string }).name);
      calls.push(`spi ${wires.join(" ")} ${String(options.baud)}`);
    },
  };
});

afterEach(() => {
  vi.useRealTimers();
  for (const name of ["A1", "A5", "A6", "A7", "B1", "SPI1", "engineRequire"])
    Reflect.deleteProperty(globals, name);
});

const wired: BoardNetwork = {
  chip: "w5500",
  spi: { bus: "SPI1", sck: "A5", miso: "A6", mosi: "A7", cs: "B1" },
  reset: "A1",
  mac: "02:00:00:00:00:01",
  address: { ip: "10.0.0.2", subnet: "255.255.255.0", gateway: "10.0.0.1" },
};

function fakeWiznet(accepts: boolean): void {
  globals.engineRequire = (name: string) => {
    calls.push(`require ${name}`);
    return {
      connect: (_spi: unknown, cs: FakePin) => {
        calls.push(`connect cs ${cs.name}`);
        return {
          setIP: (address: object) => {
            calls.push(`ip ${JSON.stringify(address)}`);
            return accepts;
          },
        };
      },
    };
  };
}

describe("a WIZnet chip", () => {
  test("is reset, given its wires and its address; then listeners may open", () => {
    fakeWiznet(true);
    startWiznet(wired, told);
    expect(calls).toEqual(["A1=0"]);
    vi.advanceTimersByTime(200);
    expect(calls.slice(1)).toEqual([
      "A1=1",
      "spi A5 A6 A7 12000000",
      "require WIZnet",
      "connect cs B1",
      'ip {"ip":"10.0.0.2","subnet":"255.255.255.0","gateway":"10.0.0.1","mac":"02:00:00:00:00:01"}',
      "ready",
    ]);
  });

  test("that refuses its address is an error: the board restarts", () => {
    fakeWiznet(false);
    startWiznet({ ...wired, reset: undefined } as BoardNetwork, told);
    expect(calls.at(-1)).toBe("error the network chip refused its address");
    expect(calls).not.toContain("ready");
  });
});

describe("Wi-Fi", () => {
  let answer: (error: unknown) => void = () => undefined;
  let lose: () => void = () => undefined;
  beforeEach(() => {
    globals.engineRequire = () => ({
      connect: (ssid: string, options: { password: string }, done: (error: unknown) => void) => {
        calls.push(`connect ${ssid} ${options.password}`);
        answer = done;
      },
      on: (event: string, listener: () => void) => {
        if (event === "disconnected") lose = listener;
      },
    });
    startWifi({ chip: "wifi", ssid: "net", password: "pw" }, told);
  });

  test("opens listeners once, and connects again when it was lost", () => {
    answer(null);
    lose();
    lose();
    vi.advanceTimersByTime(10_000);
    answer(undefined);
    expect(calls).toEqual([
      "connect net pw",
      "ready",
      "lost Wi-Fi: disconnected",
      "lost Wi-Fi: disconnected",
      "connect net pw",
    ]);
  });

  test("tries again when it cannot connect", () => {
    answer("no such network");
    vi.advanceTimersByTime(10_000);
    answer(null);
    expect(calls).toEqual([
      "connect net pw",
      "lost Wi-Fi: no such network",
      "connect net pw",
      "ready",
    ]);
  });
});

test("a desktop has its network already, and a build for another network is refused", () => {
  startHost({ chip: "host" }, told);
  expect(calls).toEqual(["ready"]);
  expect(() => startHost(wired, told)).toThrow(/desktop/);
});
