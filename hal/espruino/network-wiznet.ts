/**
 * A W5500 or W5100 on SPI, with a fixed address.
 *
 * The engine's `connect` waits in a loop of its own until the chip answers, for ever if the cable is out. So the
 * watchdog is started before this is called: a board without its network restarts until it has it.
 */
import type { EngineEthernet, EnginePin, EngineSpi, EngineWiznet, StartNetwork } from "./engine.js";

declare const global: { [name: string]: unknown };
declare const engineRequire: (name: string) => unknown;

/** The network chip's own limit is far above; long wires are not. @unit bit/s */
const SPI_BAUD = 12000000;
/** How long the reset line is held, and how long the chip takes after it; its data sheet asks for 500 us and 50 ms. @unit ms */
const RESET_MS = 2;
const AFTER_RESET_MS = 100;

function pin(name: string): EnginePin {
  return global[name] as EnginePin;
}

export const startNetwork: StartNetwork = (network, options) => {
  if (network.chip !== "w5500" && network.chip !== "w5100") {
    throw new Error("assertion failed: this build is for a WIZnet chip");
  }
  const wires = network.spi;
  const address = network.address;
  const mac = network.mac;
  const reset = network.reset;

  function begin(): void {
    const spi = global[wires.bus] as EngineSpi;
    spi.setup({
      sck: pin(wires.sck),
      miso: pin(wires.miso),
      mosi: pin(wires.mosi),
      baud: SPI_BAUD,
    });
    const chip = engineRequire("WIZnet") as EngineWiznet;
    const ethernet: EngineEthernet = chip.connect(spi, pin(wires.cs));
    const done = ethernet.setIP({
      ip: address.ip,
      subnet: address.subnet,
      gateway: address.gateway,
      mac: mac,
    });
    if (done) options.onReady();
    else options.onError("the network chip refused its address");
  }

  if (reset === undefined) {
    begin();
    return;
  }
  pin(reset).write(false);
  setTimeout(() => {
    pin(reset).write(true);
    setTimeout(begin, AFTER_RESET_MS);
  }, RESET_MS);
};
