/**
 * The pins behind the fencing lines: made safe before anything else of a home starts, and given to the core as two ports.
 */
import type { Digital, DigitalOptions } from "../hal/hal.js";
import type { ServerIndex } from "../protocol/record.js";

/** One server's line, as a board's configuration has it. */
export interface FencePins {
  /** Switches the server off at the level `active`. */
  output: string;
  active: "high" | "low";
  /** Has the level `running` while the server runs. */
  input: string;
  running: "high" | "low";
}

/** What the core's ports `fence` and `powered` are made of. */
export interface FenceLines {
  fence(server: ServerIndex, on: boolean): void;
  powered(server: ServerIndex): boolean;
}

/** @param pins undefined: no line leads to that server */
export function openFenceLines(
  pins: (FencePins | undefined)[],
  open: (options: DigitalOptions) => Digital,
): FenceLines {
  const outputs: (Digital | undefined)[] = [];
  const inputs: (Digital | undefined)[] = [];
  for (let i = 0; i < pins.length; i++) {
    const line = pins[i];
    outputs.push(
      line === undefined
        ? undefined
        : open({
            pin: line.output,
            mode: "output",
            initialValue: line.active === "low" ? 1 : 0,
          }),
    );
    inputs.push(line === undefined ? undefined : open({ pin: line.input, mode: "input" }));
  }
  return {
    fence: (server, on) => {
      outputs[server]!.write(on === (pins[server]!.active === "high") ? 1 : 0);
    },
    powered: (server) => inputs[server]!.read() === (pins[server]!.running === "high" ? 1 : 0),
  };
}
