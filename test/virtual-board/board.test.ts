/** The virtual board alone: Espruino's interface from inside, and what ends a power cycle. */
import { describe, expect, test } from "vitest";
import { FakeHost } from "./fake-host.js";

const say = 'var say=function(t){USB.write(t+"\\n")};';

describe("Espruino's interface", () => {
  test("every byte survives the way in, the way between text and bytes, and the way out", () => {
    const host = new FakeHost(
      `${say}require("net").createServer(function(s){s.on("data",function(d){
        say(typeof d+" "+d.length+" "+d.charCodeAt(255));
        var b=new Uint8Array(E.toArrayBuffer(d));
        b[0]=7;
        s.write(E.toString(b.subarray(0,256)));
        s.write(b);
      })}).listen(80)`,
    );
    host.board.connection(1, 9);
    const all = Uint8Array.from({ length: 256 }, (_, i) => i);
    host.board.data(9, all);
    expect(host.said).toBe("string 256 255\n");
    const expected = all.slice();
    expected[0] = 7;
    expect(host.sent).toEqual([expected, expected]);
    expect(host.did[0]).toBe("listen 80");
  });

  test("a text made of bytes is not taken for an equal one whose bytes were changed", () => {
    const host = new FakeHost(
      `require("net").createServer(function(s){s.on("data",function(d){
        new Uint8Array(E.toArrayBuffer(d))[0]=7;
        s.write(d);
        s.write(E.toString(new Uint8Array([1,2,3])));
      })}).listen(80)`,
    );
    host.board.connection(1, 9);
    host.board.data(9, Uint8Array.from([1, 2, 3]));
    expect(host.sent).toEqual([Uint8Array.from([7, 2, 3]), Uint8Array.from([1, 2, 3])]);
  });

  test("a socket: drain, an orderly end, an abort by clsNow, close with and without an error, writing afterwards", () => {
    const host = new FakeHost(
      `${say}var all=[];require("net").createServer(function(s){
        all.push(s);
        s.on("drain",function(){say("drain")});
        s.on("error",function(e){say("error "+e.message)});
        s.on("close",function(e){say("close "+e);try{s.write("x")}catch(x){say("threw")}});
      }).listen(80)`,
    );
    host.board.connection(1, 5);
    host.board.connection(1, 6);
    host.board.drain(5);
    host.board.serial("USB", Buffer.from("all[0].end();all[1].clsNow=true;all[1].end()\r"));
    expect(host.did.slice(1)).toEqual(["end 5", "abort 6"]);
    host.said = "";
    host.board.closed(5, "");
    host.board.closed(6, "reset by peer");
    expect(host.said).toBe("close false\nthrew\nerror reset by peer\nclose true\nthrew\n");
    // Nothing is delivered to one that is gone.
    host.board.data(5, Buffer.from("late"));
    expect(host.fault).toBeUndefined();
  });

  test("datagrams, serial lines, pins", () => {
    const host = new FakeHost(
      `${say}var d=require("dgram").createSocket("udp4");d.bind(77);
      d.on("message",function(m,from){say(m+" from "+from.address+":"+from.port)});
      d.send("poll",6383,"10.0.0.2");
      Serial1.setup(115200,{path:"/dev/x"});Serial1.on("data",function(t){Serial1.write(t+t)});
      digitalWrite(A5,1);say("B3 "+digitalRead(B3)+", A1 "+A1.read());
      setWatch(function(e){say("watch "+e.state)},B4,{repeat:true,edge:"rising"})`,
    );
    host.board.datagram(1, Buffer.from("hello"), 99, "10.0.0.3");
    host.board.serial("Serial1", Buffer.from("ab"));
    host.board.pin("B4", true);
    host.board.pin("B4", false);
    expect(host.said).toBe("B3 1, A1 false\nhello from 10.0.0.3:99\nwatch true\n");
    expect(host.did).toEqual([
      "bind 77",
      "datagram 1 poll to 10.0.0.2:6383",
      "setup Serial1 115200 /dev/x",
      "pin A5 true",
      "Serial1 abab",
    ]);
  });

  test("timers fire in order of their time; a missed interval is made up for; a cleared one does not fire", () => {
    const host = new FakeHost(
      `${say}var n=0;setTimeout(function(){say("b "+getTime())},20);setTimeout(function(a,b){say(a+b)},10,"a",1);
      var i=setInterval(function(){n++;say("i"+n);if(n==4)clearInterval(i)},30);
      var c=setTimeout(function(){say("never")},15);clearTimeout(c)`,
    );
    host.pass(25);
    expect(host.said).toBe("a1\nb 1.02\n");
    host.nowMs += 80;
    host.pass(0);
    expect(host.said).toBe("a1\nb 1.02\ni1\ni2\ni3\n");
    host.pass(100);
    expect(host.said).toBe("a1\nb 1.02\ni1\ni2\ni3\ni4\n");
    expect(host.board.dueAt).toBe(-1);
  });

  test("Storage keeps what was written through a power cycle, and the boot scripts come first", () => {
    const host = new FakeHost(
      `${say}var s=require("Storage");say(s.read("x")===undefined?"none":s.read("x"));
      s.write("x","abc",0,8);s.write("x","de",3);say(s.list().join())`,
    );
    expect(host.said).toBe("none\n.bootcde,x\n");
    host.said = "";
    host.storage.write(".boot0", Buffer.from('print("first")'), 0, 0);
    host.powerOn();
    expect(host.said).toBe("first\nabcde\xff\xff\xff\n.bootcde,x,.boot0\n");
  });

  test("an error nobody caught goes to the firmware's listener, else to the console, and ends its event alone", () => {
    const host = new FakeHost('USB.on("data",function(d){null.x});');
    host.board.serial("USB", Buffer.from("\r"));
    expect(host.said).toMatch(/Uncaught TypeError/);
    const listening = new FakeHost(
      `${say}process.on("uncaughtException",function(e){say("caught "+e)});LoopbackA.setConsole(true);
      USB.on("data",function(d){throw new Error("mine")})`,
    );
    listening.board.serial("USB", Buffer.from("\r"));
    expect(listening.said).toBe("caught Error: mine\n");
    expect(listening.fault).toBeUndefined();
  });

  test("Ctrl-C gives the console to the engine, which evaluates what is typed", () => {
    const host = new FakeHost(
      `USB.on("data",function(d){if(d=="\\x03")USB.setConsole(true)});LoopbackA.setConsole(true);var x=41`,
    );
    host.board.serial("USB", Buffer.from("x+1\r"));
    expect(host.said).toBe("");
    host.board.serial("USB", Buffer.from("\x03"));
    host.board.serial("USB", Buffer.from("x+1\r"));
    expect(host.said).toContain("=42\r\n");
  });

  test("memory is counted in blocks, and CRC32 and SHA256 are the usual ones", () => {
    const host = new FakeHost(
      `${say}var m=process.memory();say(m.blocksize+" "+(m.usage+m.free==m.total)+" "+m.total);
      say(E.CRC32(new Uint8Array([49,50,51,52,53,54,55,56,57])));
      say(new Uint8Array(require("crypto").SHA256(new Uint8Array([97,98,99])))[0]);say(getSerial())`,
    );
    expect(host.said).toBe(`16 true 65536\n${0xcbf43926}\n186\n0123-4567\n`);
  });
});

describe("what ends a power cycle", () => {
  test("out of memory: the event is abandoned, the firmware hears of it and may reboot in order", () => {
    const host = new FakeHost(
      `${say}E.on("errorFlag",function(f){say("flag "+f.join());setTimeout(function(){E.reboot()},100)});
      var leak=[];setTimeout(function(){while(true)leak.push([1,2,3])},10)`,
    );
    host.pass(50);
    expect(host.said).toBe("flag MEMORY\n");
    expect(host.fault).toBeUndefined();
    host.pass(200);
    expect(host.fault?.kind).toBe("memory");
    host.said = "";
    // Nothing of the last cycle is left.
    host.powerOn();
    expect(host.fault).toBeUndefined();
    expect(host.board.memoryUsed()).toBeLessThan(512 * 1024);
  });

  test("out of memory again before it could: the board is reset all the same", () => {
    const host = new FakeHost(
      `var leak=[];E.on("errorFlag",function(f){while(true)leak.push([1])});
      setTimeout(function(){while(true)leak.push([1])},10)`,
    );
    host.pass(50);
    expect(host.fault).toMatchObject({ kind: "memory" });
  });

  test("typed arrays count as memory too", () => {
    const host = new FakeHost(
      `var leak=[];E.on("errorFlag",function(f){E.reboot()});
      setTimeout(function(){while(true)leak.push(new Uint8Array(10000))},10)`,
    );
    host.pass(50);
    expect(host.fault).toMatchObject({ kind: "memory" });
  });

  test("an endless loop is stopped", () => {
    const host = new FakeHost("setTimeout(function(){while(true);},10)");
    host.pass(50);
    expect(host.fault).toMatchObject({ kind: "hang" });
  });

  test("an endless loop that catches everything is stopped too", () => {
    const host = new FakeHost("setTimeout(function(){for(;;)try{for(;;);}catch(e){}},10)");
    host.pass(50);
    expect(host.fault).toMatchObject({ kind: "hang" });
  });

  test("recursion without end is an error in the program, not in the board", () => {
    const host = new FakeHost(
      `${say}process.on("uncaughtException",function(e){say("caught "+e)});
      setTimeout(function(){function f(){f()}f()},10)`,
    );
    host.pass(50);
    expect(host.said).toMatch(/caught RangeError/);
    expect(host.fault).toBeUndefined();
  });

  test("a watchdog nobody kicks bites after its time, one that is kicked does not", () => {
    const kicked = new FakeHost(
      "E.enableWatchdog(5,false);setInterval(function(){E.kickWatchdog()},1000)",
    );
    kicked.pass(20_000);
    expect(kicked.fault).toBeUndefined();
    const left = new FakeHost("E.enableWatchdog(5,false);setInterval(function(){},1000)");
    left.pass(4900);
    expect(left.fault).toBeUndefined();
    left.pass(200);
    expect(left.fault).toMatchObject({ kind: "hang" });
  });

  test("after E.reboot() nothing more is sent", () => {
    const host = new FakeHost(
      `require("net").createServer(function(s){s.write("1");E.reboot();s.write("2");for(;;);}).listen(80)`,
    );
    host.board.connection(1, 3);
    expect(host.sent.map((bytes) => Buffer.from(bytes).toString())).toEqual(["1"]);
    expect(host.fault).toMatchObject({ kind: "reboot" });
    host.board.data(3, Buffer.from("x"));
    expect(host.board.dueAt).toBe(-1);
  });

  test("firmware that does not start is said so", () => {
    const host = new FakeHost("nonsense(");
    expect(host.fault?.kind).toBe("broken");
    expect(host.fault?.reason).toContain("SyntaxError");
    expect(new FakeHost("missing.thing()").fault?.reason).toContain("missing");
  });
});
