/** The network of a machine that has one already: the interpreter on a desktop. */
import type { StartNetwork } from "./engine.js";

export const startNetwork: StartNetwork = (network, options) => {
  if (network.chip !== "host") throw new Error("assertion failed: this build is for a desktop");
  options.onReady();
};
