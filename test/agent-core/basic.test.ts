import { describe, expect, test } from "vitest";
import { World } from "./world.js";

describe("two cores and a controller", () => {
  test("both adopt, open a session, and answer", () => {
    const world = new World();
    world.begin();
    expect(world.ask(0, "SET", "k", "1")).toBe("+OK\r\n");
    expect(world.ask(0, "GET", "k")).toBe("$1\r\n1\r\n");
    expect(world.ask(1, "GET", "k")).toBe("$1\r\n1\r\n");
    expect(world.ask(1, "SET", "k", "2")).toMatch(/^outcome 1: this server is standby/);
  });
});
