/** Wi-Fi by the engine's own module: connects, and connects again whenever it was lost. */
import type { EngineWifi, StartNetwork } from "./engine.js";

declare const engineRequire: (name: string) => unknown;

/** @unit ms */
const AGAIN_MS = 2000;

export const startNetwork: StartNetwork = (network, options) => {
  if (network.chip !== "wifi") throw new Error("assertion failed: this build is for Wi-Fi");
  const ssid = network.ssid;
  const password = network.password;
  const wifi = engineRequire("Wifi") as EngineWifi;
  let ready = false;
  let asked = false;

  function connect(): void {
    asked = false;
    wifi.connect(ssid, { password: password }, onAnswer);
  }

  function again(): void {
    if (asked) return;
    asked = true;
    setTimeout(connect, AGAIN_MS);
  }

  function onAnswer(error: unknown): void {
    if (error !== null && error !== undefined) {
      options.onLost("Wi-Fi: " + error);
      again();
      return;
    }
    if (ready) return;
    // The listeners stay when the connection is lost and comes back.
    ready = true;
    options.onReady();
  }

  wifi.on("disconnected", () => {
    options.onLost("Wi-Fi: disconnected");
    again();
  });
  connect();
};
