/** Property names that a bundle must keep: those of the language and of the engines' own interfaces. */

const BUILTINS = [
  Object, Function, Array, String, Number, Boolean, Error, Promise, ArrayBuffer, DataView, Uint8Array, Int8Array,
  Uint16Array, Int16Array, Uint32Array, Int32Array, Float32Array, Float64Array, RegExp, Date,
]; // prettier-ignore

const ENGINE = [
  // Espruino's E, process, net, dgram, Storage, Serial, pins
  "toString", "toArrayBuffer", "toUint8Array", "CRC32", "enableWatchdog", "kickWatchdog", "reboot", "getErrorFlags",
  "memory", "usage", "total", "free", "blocksize", "on", "write", "end", "clsNow", "dSnd", "removeAllListeners", "listen", "close", "createServer",
  "bind", "send", "address", "port", "createSocket", "read", "erase", "getFree", "compact", "SHA256", "setConsole", "setup",
  "env", "BOARD", "exit", "tx", "rx", "path",
  // WIZnet, Wifi, SPI, pins
  "connect", "setIP", "ip", "subnet", "gateway", "mac", "sck", "miso", "mosi", "baud", "password",
  // IoT.js
  "destroy", "connect", "setNoDelay", "readFileSync", "writeFileSync", "openSync", "writeSync", "readSync", "closeSync",
  "existsSync", "createHash", "update", "digest", "argv", "stdout", "pid",
]; // prettier-ignore

function builtinNames() {
  const names = new Set([
    "prototype",
    "constructor",
    "length",
    "name",
    "message",
    "stack",
    "call",
    "apply",
    "bind",
  ]);
  for (const one of BUILTINS) {
    for (const name of Object.getOwnPropertyNames(one)) names.add(name);
    for (let at = one.prototype; at && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
      for (const name of Object.getOwnPropertyNames(at)) names.add(name);
    }
  }
  for (const holder of [Math, JSON])
    for (const name of Object.getOwnPropertyNames(holder)) names.add(name);
  return [...names].filter((name) => /^[A-Za-z_]\w*$/.test(name));
}

export const RESERVED_NAMES = [...new Set([...builtinNames(), ...ENGINE])].sort();
