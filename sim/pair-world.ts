/**
 * The pair in its world: three machines, their disks and flash, the network between them and the
 * clients, built from a seed's options; and what can be done to all that.
 */
import { createHmac } from "node:crypto";
import type { AgentConfig } from "../agent/core/config.js";
import { agentLimits } from "../agent/core/limits.js";
import type { CoreConfig } from "../firmware/core/config.js";
import { defaultTimings } from "../firmware/core/config.js";
import { defaultLimits } from "../firmware/core/limits.js";
import type { RoleRecord } from "../protocol/record.js";
import {
  areApart,
  decodeRecord,
  encodeRecord,
  MODE_BOTH,
  MODE_SOLO,
  RECORD_BYTES,
} from "../protocol/record.js";
import { FORM_BINARY, FORM_TEXT } from "../protocol/serial.js";
import { FRAME_SEALED, frameOf } from "../protocol/frame.js";
import { KIND_RECORD, encodeControl } from "../protocol/messages.js";
import { SIDE_CONTROLLER, encodeSerial } from "../protocol/serial.js";
import { SEAL_BYTES, sealedFrame } from "../protocol/serial-seal.js";
import { DamagedRow } from "../agent/store/checked-row.js";
import { AgentProgram } from "./agent-program.js";
import type { ClientStyle, ClientWorld } from "./clients.js";
import { Client, ClientsProgram } from "./clients.js";
import { BoardFlash } from "./board-flash.js";
import {
  addressOf,
  BundleController,
  LINK_PORT,
  NATIVE_PORT,
  REDIS_PORT,
} from "./bundle-controller.js";
import { ControllerProgram } from "./controller-program.js";
import type { Controller } from "./controller-program.js";
import type { Firmware } from "./firmware.js";
import type { Fault, TargetName } from "./faults.js";
import { describeFault } from "./faults.js";
import { RoleChanges } from "./checkers/role-changes.js";
import { SessionClient } from "./session-client.js";
import { lateLine, SCRIPTS } from "./nemesis.js";
import { History } from "./history.js";
import { LinkLog } from "./link-log.js";
import { LinkTap } from "./link-tap.js";
import { CALM_KINDS } from "./options.js";
import type { Options } from "./options.js";
import { crc32 } from "./crc32.js";
import { Disk } from "./world/disk.js";
import { Flash } from "./world/flash.js";
import { Machine } from "./world/machine.js";
import { Network } from "./world/network.js";
import { SerialLine } from "./world/serial-line.js";
import type { Random } from "./world/random.js";
import type { World } from "./world/world.js";
import type { Store } from "../agent/core/store.js";

const A = 0;
const B = 1;
const C = 2;
const CLIENTS = 3;
const NAMES = ["a", "b", "controller", "clients"];
/** Where an agent keeps its record: the row begins with it (agent/core/roles.ts). */
const ROLES_ROW = Uint8Array.of(114);
/** Where it keeps the mark of a copy that is not whole (agent/core/batch-sync.ts). */
const COPY_ROW = Uint8Array.of(99);
/** Tokens of one appended value. */
const APPENDS_MAX = 120;
const BURSTS_MAX = 8;
/** Records in one of a virtual board's two journals. */
const JOURNAL_SLOTS = 8;
const KEY = new Uint8Array(32).fill(7);

/** Something done that is undone when its time is over, or when all is healed. */
interface Active {
  undo: () => void;
  over: boolean;
  /** It disturbs clients only, and is no cause for a change of roles. */
  calm: boolean;
}

export class PairWorld implements ClientWorld {
  readonly network: Network;
  readonly machines: Machine[] = [];
  readonly disks: [Disk, Disk];
  readonly flash: Flash;
  readonly history = new History();
  readonly clients: Client[] = [];
  readonly tap: LinkTap;
  readonly keys: string[];
  /** Changes of primary that reached the flash. */
  failovers = 0;
  flashRecord: RoleRecord | undefined;
  private flashBytes: Uint8Array | undefined;
  private readonly heldRow: [Uint8Array | undefined, Uint8Array | undefined] = [
    undefined,
    undefined,
  ];
  private readonly held: [RoleRecord | undefined, RoleRecord | undefined] = [undefined, undefined];
  /** Machines that stay as they are when all is healed. */
  readonly dead = new Set<number>();
  /** A disk that was replaced or restored, until the record in mode both names it. */
  private readonly tainted: [boolean, boolean] = [false, false];
  private readonly backups: [Store | undefined, Store | undefined] = [undefined, undefined];
  private readonly active: Active[] = [];
  private sessions = 0;
  private values = 0;
  private appends = 0;
  private firstAppendKey = 0;
  /** The operator was told what a force may cost, and gave it. */
  private mayLose = false;
  private forcedCount = 0;
  /** A board serves beside a server that knows no later record, though there is one. */
  oldBoardAlone = false;
  private hangWhenKept = -1;
  private forcePending = false;
  /** Whom the operator names in the order that is being given. */
  private forceTarget: 0 | 1 = 0;
  /** The one that was forced over has not heard of it: at its own port it still acknowledges, by right in vain. */
  private forcedUnheard = false;
  /** The servers have found that they differ under one epoch; an operator is on the way. */
  private splitFound = false;
  private choosing = false;
  private reforcing = false;
  readonly faultRandom: Random;
  private readonly mayFail: [boolean, boolean] = [false, false];
  /** What somebody has set each server's wall clock to, beside its drift. @unit ms */
  private readonly wallOffsetMs: [number, number] = [0, 5000];
  private healing = false;
  /** What strikes now disturbs clients only. */
  private calm = false;
  private bursts = 0;
  private readonly roleChanges = new RoleChanges();
  readonly sessionClients: SessionClient[] = [];
  private foreignBoard = false;
  readonly lines: (SerialLine | undefined)[] = [undefined, undefined];
  /** Lossy forces so far: each begins keys of another generation, and closes the books of those before. */
  private generation = 0;
  /** When keys of each generation were given up. @unit ms */
  readonly closedAt: number[] = [];
  /** What of each generation was acknowledged before this must outlive the loss; -1: nothing must. @unit ms */
  readonly survives: number[] = [];
  /** The first list of each generation. */
  private readonly firstLists: number[] = [0];
  /** The newest record of mode both that a controller wrote, and when one of mode solo came after it. */
  private lastBoth: RoleRecord | undefined;
  private apartSince = Infinity;

  private readonly boardFlash: BoardFlash | undefined;

  constructor(
    readonly world: World,
    readonly options: Options,
    /** The controller is this bundle on a virtual board; without it, the core itself. */
    private readonly firmware?: Firmware,
  ) {
    const random = world.random;
    if (firmware !== undefined) {
      world.hmac = (key, data) => new Uint8Array(createHmac("sha256", key).update(data).digest());
      // The bundle has no serial lines yet.
      options.serial = [false, false];
    }
    this.faultRandom = random.fork("faults");
    this.network = new Network(world, 4);
    this.network.oddChunks = options.oddChunks;
    this.flash = new Flash(world);
    this.boardFlash = firmware === undefined ? undefined : this.blankBoard(firmware);
    this.disks = [new Disk(world, "a"), new Disk(world, "b")];
    for (const disk of this.disks) {
      disk.flushMaxMs = disk.flushMinMs + (options.memory ? 0.1 : options.flushMaxMs);
      disk.memory = options.memory;
    }
    const boots = [
      (machine: Machine) => this.bootAgent(machine, A),
      (machine: Machine) => this.bootAgent(machine, B),
      (machine: Machine) => this.bootController(machine),
      () => new ClientsProgram(),
    ];
    for (let i = 0; i < 4; i++) {
      this.machines.push(
        new Machine(world, i, NAMES[i]!, boots[i]!, (machine, error) =>
          this.onThrow(machine, error),
        ),
      );
    }
    for (let i = 0; i < 3; i++) {
      this.machines[i]!.setClockRate(options.clockRates[i === C ? 0 : i + 1]!);
    }
    for (let from = 0; from < 4; from++) {
      for (let to = 0; to < 4; to++) {
        const path = this.network.paths[from * 4 + to]!;
        const base = from < 2 && to < 2 ? options.peerLatencyMs : options.latencyMs;
        path.latencyMs = base;
        path.jitterMs = base;
      }
    }
    this.tap = new LinkTap({
      controllerIndex: C,
      flashRecord: () => this.flashRecord,
      // A disk that has just been exchanged is no news to the controller yet.
      heldRecord: (server) =>
        this.tainted[server as 0 | 1] ? this.flashRecord : this.heldRecord(server as 0 | 1),
      violate: (promise, what) => world.violate(promise, what),
    });
    this.network.tap = (from, bytes, arrived) => this.tap.onBytes(from, bytes, arrived);
    if (world.trace.readable) this.logFrames();
    this.keys = ["r0", "r1", "c0", "l"];
    if (random.chance(0.5)) this.keys.push("m0");
    if (random.chance(0.4)) this.keys.push("h0");
    this.layCables();
    this.watchFlash();
    this.machine.start();
    if (options.foundedAlone >= 0) this.foundAlone(options.foundedAlone as 0 | 1);
    world.at(options.startMs[0], () => this.machines[C]!.start());
    for (const index of [A, B] as const) {
      const late = options.foundedAlone === 1 - index ? 500 + options.startMs[0] : 0;
      world.at(options.startMs[index + 1]! + late, () => this.machines[index]!.start());
    }
    this.startClients(random.fork("clients"));
  }

  /** Frames between servers and controller, and between the servers, as lines of the readable trace. */
  private logFrames(): void {
    const world = this.world;
    const log = new LinkLog(
      (who, text) => world.trace.detail(world.now, who, () => text),
      (from, text) => {
        const [near, far] = [from.machine, from.peer.machine];
        const path = this.network.path(near, far);
        const due = world.now + path.latencyMs + path.extraMs;
        world.trace.picture.message(world.now, near.name, far.name, due, text);
      },
    );
    const tap = this.network.tap!;
    this.network.tap = (from, bytes, arrived) => {
      if (!arrived && from.machine.index < 3 && from.peer.machine.index < 3)
        log.onBytes(from, bytes);
      tap(from, bytes, arrived);
    };
  }

  private layCables(): void {
    for (const index of [A, B] as const) {
      if (!this.options.serial[index]) continue;
      const controller = this.machines[C]!;
      const server = this.machines[index]!;
      this.lines[index] = new SerialLine(
        this.world,
        [
          { machine: controller, receive: (bytes) => this.controller()?.onSerial(index, bytes) },
          { machine: server, receive: (bytes) => this.agent(index)?.onSerial(bytes) },
        ],
        NAMES[index]!,
      );
    }
  }

  /** One server alone, and an operator who makes it a pair; the other comes later, blank. */
  private foundAlone(index: 0 | 1): void {
    const own = this.faultRandom.fork("founder");
    const identity = Buffer.from(this.disks[index].identity).toString("hex");
    const order = (): void => {
      if (this.flashRecord !== undefined || this.machines[(1 - index) as 0 | 1]!.alive) return;
      this.command(`newPair ${identity}`);
      this.world.after(own.between(5, 80), order);
    };
    this.world.after(own.between(30, 200), order);
  }

  // --- what clients need ---

  get machine(): Machine {
    return this.machines[CLIENTS]!;
  }

  target(via: ClientStyle["via"]): Machine {
    return this.machines[via === "a" ? A : via === "b" ? B : C]!;
  }

  nextSession(): number {
    return ++this.sessions;
  }

  nextValue(): string {
    return "v" + (this.values++).toString(36).padStart(5, "0");
  }

  current(name: string): string {
    return this.generation === 0 ? name : `${name}+${this.generation}`;
  }

  /** A server's own port has answered. */
  localReply(via: "a" | "b", reads: boolean, ok: boolean): void {
    const index = via === "a" ? A : B;
    const record = this.heldRecord(index);
    if (record === undefined) return;
    if (reads) {
      if (ok) this.world.cover("local read");
      else if (record.mode === MODE_SOLO) this.world.cover("local read refused");
      return;
    }
    if (!ok) return;
    this.world.cover(
      record.primary === index ? "local change at primary" : "local change at standby",
    );
    if (!this.machines[C]!.alive) this.world.cover("local change without controller");
  }

  appendKey(): string {
    return `l${Math.floor(this.appends / APPENDS_MAX)}`;
  }

  appended(): void {
    this.appends++;
  }

  /** All keys that were used, for the last reads. */
  usedKeys(): string[] {
    const keys = this.keys.filter((key) => key !== "l").map((key) => this.current(key));
    for (let i = this.firstAppendKey; i <= Math.floor(this.appends / APPENDS_MAX); i++)
      keys.push(`l${i}`);
    return keys;
  }

  get ttlMaxMs(): number {
    return this.options.ttlMaxMs;
  }

  /** Keys that were given up, but for what has to be there all the same. */
  survivingKeys(): string[] {
    const out: string[] = [];
    for (const [generation, limit] of this.survives.entries()) {
      if (limit < 0) continue;
      const suffix = generation === 0 ? "" : `+${generation}`;
      for (const key of this.keys.concat("p")) if (key !== "l") out.push(key + suffix);
      const end = this.firstLists[generation + 1]!;
      for (let i = this.firstLists[generation]!; i < end; i++) out.push(`l${i}`);
    }
    return out;
  }

  pace(): number {
    return this.healing ? this.options.easeOff : 1;
  }

  anomaly(promise: string, what: string): void {
    this.world.violate(promise, what);
  }

  private startClients(random: Random): void {
    const options = this.options;
    for (let i = 0; i < options.clients + options.localClients; i++) {
      const own = random.fork(`client ${i}`);
      const local = i >= options.clients;
      const style: ClientStyle = {
        via: local ? own.pick(["a", "b"] as const) : "controller",
        batchMax: own.pick([1, 1, 3, 8]),
        open: own.chance(0.2),
        pauseMs: options.meanPauseMs * own.between(0.5, 2),
        readShare: own.pick([0.2, 0.5, 0.8]),
        churnMs: own.chance(0.3) ? own.spread(100, 3000) : 0,
        pairShare: own.chance(0.5) ? 0.2 : 0,
        keys: own.chance(0.3) ? [own.pick(this.keys)] : this.keys,
      };
      this.world.at(own.between(0, 50), () => {
        this.clients.push(new Client(this, `client${i}`, style, own));
      });
    }
    for (let i = 0; i < options.sessionClients; i++) {
      const own = random.fork(`session ${i}`);
      this.world.at(own.between(0, 50), () => {
        this.sessionClients.push(
          new SessionClient(
            this,
            `numbered${i}`,
            options.meanPauseMs * own.between(0.5, 2),
            own.pick([0.2, 0.5]),
            this.keys.filter((key) => key[0] !== "m"),
            own,
          ),
        );
      });
    }
  }

  // --- processes ---

  /** A board that has the firmware, with this world's constants, and nothing else. */
  private blankBoard(firmware: Firmware): BoardFlash {
    const { options } = this;
    const own: Record<string, unknown> = {
      key: [...KEY],
      balancing: this.balancing(),
      linkPort: LINK_PORT,
      redisPort: REDIS_PORT,
      nativePort: NATIVE_PORT,
      "limits.inFlightMax": this.inFlightMax(),
      // So few that journals fill and are made anew within a run.
      journalSlots: JOURNAL_SLOTS,
    };
    for (const server of [A, B]) {
      own[`servers.${server}.id`] = NAMES[server];
      own[`servers.${server}.host`] = addressOf(server).host;
      own[`servers.${server}.udpPort`] = addressOf(server).port;
      own[`servers.${server}.preset`] = options.preset === server;
    }
    for (const [name, value] of Object.entries(defaultTimings())) own[`timings.${name}`] = value;
    const constants = firmware.paths.map((path, i) => own[path] ?? firmware.values[i]);
    return new BoardFlash(
      this.flash,
      firmware,
      constants,
      JOURNAL_SLOTS,
      this.world.random.fork("board"),
    );
  }

  private balancing(): CoreConfig["balancing"] {
    return this.world.seed % 4 === 0 ? "reported-load" : "expected-delay";
  }

  private inFlightMax(): number {
    return this.options.smallLimits ? 16 : 256;
  }

  private bootController(machine: Machine): Controller {
    const options = this.options;
    // A write that the last process left under way may have ended as the new record.
    this.closeForced();
    this.readFlash();
    const servers = [this.machines[A]!, this.machines[B]!];
    const onReset = (reason: string): void => this.onReset(machine, reason);
    const onEvent = (event: string): void => this.onControllerEvent(event);
    if (this.firmware !== undefined) {
      return new BundleController(
        machine,
        this.network,
        servers,
        this.flash,
        this.boardFlash!,
        this.firmware,
        onReset,
        (reason) => this.broken(machine, reason),
        onEvent,
      );
    }
    const limits = defaultLimits();
    limits.inFlightMax = this.inFlightMax();
    const config: CoreConfig = {
      servers: [
        { id: "a", preset: options.preset === 0, serial: this.form(A) },
        { id: "b", preset: options.preset === 1, serial: this.form(B) },
      ],
      key: KEY,
      clientKey: undefined,
      clientPassword: undefined,
      balancing: this.balancing(),
      frameMax: 65536,
      idMax: options.idMax,
      seed: new Uint8Array(0),
      timings: defaultTimings(),
      limits,
    };
    return new ControllerProgram(
      machine,
      this.network,
      servers,
      this.lines,
      this.flash,
      config,
      onReset,
      onEvent,
    );
  }

  private form(index: 0 | 1): typeof FORM_BINARY | typeof FORM_TEXT | undefined {
    if (this.lines[index] === undefined) return undefined;
    return this.options.serialText ? FORM_TEXT : FORM_BINARY;
  }

  private onAgentNote(index: 0 | 1, event: string, details: object | undefined): void {
    if (event === "stopped" && /another record/.test((details as { why: string }).why)) {
      this.splitFound = true;
      if (!this.choosing) this.chooseAfterSplit();
    }
    if (event === "set-aside-refused") this.forceAgain();
    // Its copy began when the order was under way: the tables had been cleared before the record came.
    if (event === "forced-in-a-copy") this.closeBooks();
    if (event === "forced-apart" && !this.choosing && this.options.operatorChooses) {
      this.chooseForced();
    }
    if (event === "asked-for-both") for (const armed of this.onAsked.splice(0)) armed();
    if (event !== "record-adopted") return;
    for (const one of this.history.inVain) {
      if (one.via === NAMES[index] && one.to === Infinity) one.to = this.world.now;
    }
    const follows = (details as { role: string }).role === "joiner";
    if (this.forcedUnheard && follows && index !== this.forceTarget) {
      this.forcedUnheard = false;
      // Until now it answered in vain; it held nothing that the other has to have.
      this.closeBooks(-1, Infinity);
    }
    const { world } = this;
    world.cover(`role ${(details as { role: string }).role}`);
    if (!this.machines[C]!.alive) world.cover("adopted without the controller");
    const record = this.flashRecord;
    if (record !== undefined && record.mode === MODE_BOTH)
      world.cover("adopted with a session open");
  }

  private bootAgent(machine: Machine, index: 0 | 1): AgentProgram {
    const disk = this.disks[index];
    const options = this.options;
    const row = disk.content.get("meta", ROLES_ROW);
    if (row !== undefined && row[RECORD_BYTES] === 1) this.world.cover("restart after asked");
    if (disk.content.get("meta", COPY_ROW) !== undefined) this.world.cover("restart while copying");
    const config: AgentConfig = {
      id: index === A ? "a" : "b",
      index,
      peerId: index === A ? "b" : "a",
      key: KEY,
      identity: disk.identity.slice(),
      emptied: disk.content.count("meta") === 0,
      preset: options.preset === index,
      controllerAddress: "controller:6380",
      localPassword: "",
      limits: agentLimits(
        options.smallLimits
          ? {
              logBytesMax: 32768,
              chunkBytesMax: 1024,
              checkpointBytes: 4096,
              tailBytesMax: 2048,
              streamWindowBytes: 65536,
              overlayKeysMax: 8,
              sliceKeysMax: 3,
              copyRowsMax: 2,
              copyBytesMax: 256,
              trimChunksMax: 4,
              joinLagEntries: 20,
              boundariesMax: 16,
            }
          : {},
      ),
    };
    return new AgentProgram(
      machine,
      this.network,
      { controller: this.machines[C]!, peer: this.machines[1 - index]! },
      disk,
      config,
      this.world.random.fork(`agent ${index}`),
      (reason) => this.onFatal(machine, index, reason),
      () => 1_700_000_000_000 + this.world.now * (1 + index * 0.001) + this.wallOffsetMs[index],
      this.lines[index],
      (event, details) => this.onAgentNote(index, event, details),
    );
  }

  private onThrow(machine: Machine, error: unknown): void {
    if (error instanceof DamagedRow && machine.index !== C) {
      this.onDamagedRow(machine, machine.index as 0 | 1);
      return;
    }
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.broken(machine, text);
  }

  private broken(machine: Machine, reason: string): void {
    this.world.violate("assertion", `${machine.name}: ${reason}`);
    machine.kill("broken invariant");
    if (this.world.safetyOnly) this.startAgain(machine.index, this.faultRandom.spread(20, 800));
  }

  private onReset(machine: Machine, reason: string): void {
    // A flash that does not take a record is the one thing for which the chip may reset itself.
    if (!this.flash.failed) {
      this.broken(machine, `reset: ${reason}`);
      return;
    }
    this.flash.failed = false;
    machine.kill(reason);
    this.startAgain(C, this.faultRandom.spread(5, 300));
  }

  /**
   * The agent ends with status 5 and stays down until its operator does what the message says: an empty disk, where the other
   * server has everything. Where it has not, the disk turns out to be readable after all; else the pair would rightly wait.
   */
  private onDamagedRow(machine: Machine, index: 0 | 1): void {
    this.roleChanges.disturbed(this.world.now);
    this.world.cover("damaged row");
    machine.kill("exit status 5: a damaged row");
    this.world.after(this.faultRandom.spread(5, 1500), () => {
      if (machine.alive) return;
      if (this.mayExchange(index)) {
        this.disks[index].replace();
        this.tainted[index] = true;
      } else {
        this.disks[index].mend();
      }
      this.startAgain(index, 0);
    });
  }

  private onFatal(machine: Machine, index: 0 | 1, reason: string): void {
    if (/is not what was written there/.test(reason)) {
      this.onDamagedRow(machine, index);
      return;
    }
    if (!this.mayFail[index] && !this.disks[index].full) {
      this.broken(machine, `fatal: ${reason}`);
      return;
    }
    if (/store failed/.test(reason)) this.world.cover("flush failed");
    machine.kill(reason);
    this.startAgain(index, this.faultRandom.spread(20, 800));
  }

  startAgain(index: number, afterMs: number): void {
    this.roleChanges.disturbed(this.world.now);
    this.world.after(afterMs, () => {
      this.roleChanges.disturbed(this.world.now);
      if (!this.dead.has(index)) this.machines[index]!.start();
    });
  }

  private watchFlash(): void {
    const look = this.flash;
    const persist = look.persist.bind(look);
    look.persist = (record, done) => {
      persist(record, (error) => {
        if (error === undefined) this.onRecord(record);
        done(error);
      });
      const begun = recordOf(record);
      for (const armed of this.onFlashWrite.splice(0)) {
        if (!armed(begun)) this.onFlashWrite.push(armed);
      }
    };
  }

  /** Asked when a record begins to be written; true: it has struck. */
  readonly onFlashWrite: ((record: RoleRecord | undefined) => boolean)[] = [];
  /** Called once each when the controller says this of itself. */
  readonly onEvents: { event: string; action: () => void }[] = [];
  /** Called once each when a record has reached the flash. */
  readonly onRoles: (() => void)[] = [];

  /** Called once each when a primary has put `asked` on disk and asks for both. */
  readonly onAsked: (() => void)[] = [];

  private readonly pastRecords: Uint8Array[] = [];

  private onRecord(bytes: Uint8Array): void {
    this.closeForced();
    const before = this.flashRecord;
    this.readFlash();
    const record = this.flashRecord;
    if (record === undefined) return;
    if (record.mode === MODE_BOTH) {
      this.lastBoth = record;
      this.apartSince = Infinity;
    }
    this.pastRecords.push(bytes.slice());
    const text = `${record.mode === MODE_SOLO ? "solo" : "both"}(${NAMES[record.primary]}) epoch ${record.epoch}`;
    this.world.trace.line(this.world.now, "FLASH", text);
    if (!this.active.some((one) => !one.over && !one.calm)) {
      const found = this.roleChanges.changed(this.world.now, text, record.mode !== MODE_SOLO);
      if (found !== undefined) this.world.violate(found.promise, found.what);
    }
    if (before !== undefined && before.primary !== record.primary) this.failovers++;
    for (const armed of this.onRoles.splice(0)) armed();
  }

  /** What the flash holds now. */
  readFlash(): void {
    const bytes = this.flash.record;
    if (bytes === undefined) this.flashRecord = undefined;
    else if (bytes !== this.flashBytes || this.flashRecord === undefined) {
      this.flashRecord = recordOf(bytes);
      // It may be there though its write was cut off.
      if (this.flashRecord?.mode === MODE_SOLO)
        this.apartSince = Math.min(this.apartSince, this.world.now);
    }
    this.flashBytes = bytes;
  }

  /** The record with the highest epoch that flash or disks hold. */
  newestRecord(): RoleRecord | undefined {
    let newest = this.flashRecord;
    for (const index of [A, B] as const) {
      const held = this.heldRecord(index);
      if (held !== undefined && (newest === undefined || held.epoch > newest.epoch)) newest = held;
    }
    return newest;
  }

  /** The record on a server's disk. */
  heldRecord(index: 0 | 1): RoleRecord | undefined {
    const row = this.disks[index].content.get("meta", ROLES_ROW);
    if (row === undefined) return undefined;
    // A row is never changed in place: the same one holds the same record.
    if (row !== this.heldRow[index]) {
      this.heldRow[index] = row;
      this.held[index] = recordOf(row);
    }
    return this.held[index];
  }

  // --- faults ---

  strike(fault: Fault): void {
    if (this.healing) return;
    this.calm = CALM_KINDS.includes(fault.kind);
    const done = this.inflict(fault);
    if (done && !this.calm) this.roleChanges.disturbed(this.world.now);
    this.calm = false;
    if (done) {
      this.world.countFault(fault.kind);
      this.world.trace.line(this.world.now, "FAULT", describeFault(fault));
    }
  }

  private index(name: TargetName): number {
    switch (name) {
      case "a":
        return A;
      case "b":
        return B;
      case "c":
        return C;
      case "primary":
        return this.flashRecord?.primary ?? A;
      case "standby":
        return 1 - (this.flashRecord?.primary ?? A);
    }
  }

  /** @returns what ends it before its time */
  lasting(forMs: number, undo: () => void): () => void {
    const active: Active = { undo, over: false, calm: this.calm };
    this.active.push(active);
    const end = (): void => this.end(active);
    this.world.after(forMs, end);
    return end;
  }

  private end(active: Active): void {
    if (active.over) return;
    active.over = true;
    active.undo();
    if (!active.calm) this.roleChanges.disturbed(this.world.now);
  }

  private inflict(fault: Fault): boolean {
    const index = this.index(fault.target);
    const machine = this.machines[index]!;
    let otherIndex = this.index(fault.other);
    if (otherIndex === index) otherIndex = (index + 1 + Math.floor(fault.strength * 2)) % 3;
    const other = this.machines[otherIndex]!;
    const network = this.network;
    switch (fault.kind) {
      case "kill":
        if (!machine.alive) return false;
        machine.kill("kill -9");
        this.startAgain(index, fault.forMs);
        return true;
      case "power":
        if (!machine.powered) return false;
        if (!this.losePower(index, "fault")) return false;
        this.startAgain(index, fault.forMs);
        return true;
      case "hang":
        if (machine.state !== "up") return false;
        machine.hang();
        this.lasting(fault.forMs, () => machine.resume());
        return true;
      case "slow":
        machine.slowness = 2 + fault.strength * 100;
        this.lasting(fault.forMs, () => {
          machine.slowness = 1;
        });
        return true;
      case "block":
      case "clog":
        network.block(machine, other);
        network.block(other, machine);
        this.lasting(fault.forMs, () => {
          network.unblock(machine, other);
          network.unblock(other, machine);
        });
        return true;
      case "blockOneWay":
        network.block(machine, other);
        this.lasting(fault.forMs, () => network.unblock(machine, other));
        return true;
      case "isolate": {
        const others = this.machines.filter(
          (m) => m !== machine && (fault.strength < 0.7 || m.index < 3),
        );
        for (const m of others) {
          network.block(machine, m);
          network.block(m, machine);
        }
        this.lasting(fault.forMs, () => {
          for (const m of others) {
            network.unblock(machine, m);
            network.unblock(m, machine);
          }
        });
        return true;
      }
      case "cutLink": {
        let cut = false;
        for (const end of machine.ends) {
          if (end !== undefined && end.peer.machine === other) {
            end.cut();
            cut = true;
          }
        }
        return cut;
      }
      case "udp": {
        const paths = network.paths;
        const strength = fault.strength;
        for (const path of paths) {
          path.loss = strength * 0.4;
          path.doubling = strength * 0.3;
          path.reordering = strength * 0.3;
        }
        this.lasting(fault.forMs, () => {
          for (const path of paths) {
            path.loss = 0;
            path.doubling = 0;
            path.reordering = 0;
          }
        });
        return true;
      }
      case "latency": {
        const there = network.path(machine, other);
        const back = network.path(other, machine);
        const extra = 1 + fault.strength * fault.strength * 120;
        there.extraMs += extra;
        if (fault.strength > 0.3) back.extraMs += extra;
        this.lasting(fault.forMs, () => {
          there.extraMs -= extra;
          if (fault.strength > 0.3) back.extraMs -= extra;
        });
        return true;
      }
      case "diskStall": {
        const disk = this.disks[index as 0 | 1];
        disk.stalledUntil = Math.max(disk.stalledUntil, this.world.now + fault.forMs);
        return true;
      }
      case "diskSlow": {
        const disk = this.disks[index as 0 | 1];
        disk.flushMaxMs += fault.strength * 60;
        this.lasting(fault.forMs, () => {
          disk.flushMaxMs -= fault.strength * 60;
        });
        return true;
      }
      case "diskFail":
        if (!machine.alive) return false;
        this.mayFail[index as 0 | 1] = true;
        this.disks[index as 0 | 1].failNext = true;
        return true;
      case "diskReplace":
      case "diskRestore":
        return this.exchangeDisk(index as 0 | 1, fault);
      case "flashSlow":
        this.flash.writeMaxMs += fault.strength * 80;
        this.lasting(fault.forMs, () => {
          this.flash.writeMaxMs -= fault.strength * 80;
        });
        return true;
      case "flashFail":
        this.flash.failNext = true;
        return true;
      case "flashTear":
        this.onFlashWrite.push(() => {
          this.world.after(fault.strength * this.flash.writeMaxMs, () => {
            if (this.healing) return;
            this.machines[C]!.kill("in the middle of a flash write");
            this.startAgain(C, fault.forMs);
          });
          return true;
        });
        return true;
      case "flashWipe":
      case "flashForeign":
        // What a wiped controller forgot must be known to a server whose disk is what it was.
        if (this.taintedNow() || this.flashRecord === undefined) return false;
        this.wipeFlash(
          fault.kind === "flashWipe"
            ? ""
            : fault.strength < 0.5
              ? "written on another chip"
              : "a damaged slot",
          fault.forMs,
        );
        return true;
      case "flashOld": {
        // A board from the drawer, with a record this pair once had. Both servers must know a later one: an old
        // board put in while one is away is the one thing that nothing can protect from (rule 19).
        const old = this.pastRecords[Math.floor(fault.strength * this.pastRecords.length)];
        const record = this.flashRecord;
        if (old === undefined || record === undefined || this.taintedNow()) return false;
        for (const server of [A, B] as const) {
          const held = this.heldRecord(server);
          if (held === undefined || held.epoch !== record.epoch) return false;
        }
        const oldEpoch = recordOf(old)?.epoch ?? 0;
        if (oldEpoch >= record.epoch) return false;
        this.putBack(old, fault.forMs);
        return true;
      }
      case "switchover":
        this.command("switchover");
        return true;
      case "rowRot":
      case "logRot": {
        const own = this.faultRandom;
        const table =
          fault.kind === "logRot" ? "log" : own.pick(["data", "data", "field", "meta"] as const);
        return this.disks[index as 0 | 1].rot(table, own);
      }
      case "wallJump":
        // By up to a day, back or forth; the next process that asks for the time gets it.
        this.wallOffsetMs[index as 0 | 1] +=
          this.faultRandom.spread(500, 86_400_000) * (fault.strength < 0.5 ? -1 : 1);
        return true;
      case "chipReset":
        // The network chip forgets every socket, and its firmware hears of it; nobody else does before he sends.
        return this.resetChip(fault.strength < 0.5);
      case "clockRate": {
        machine.setClockRate(0.8 + fault.strength * 0.4);
        this.lasting(fault.forMs, () => machine.setClockRate(1));
        return true;
      }
      case "clientCut":
        for (const end of this.machine.ends) {
          if (end !== undefined && this.faultRandom.chance(0.5)) end.cut();
        }
        return true;
      case "urgentCrash": {
        const disk = this.disks[index as 0 | 1];
        disk.onUrgent = () => {
          disk.onUrgent = undefined;
          this.world.after(fault.strength * 2 * disk.flushMaxMs, () => {
            if (this.healing) return;
            if (fault.strength < 0.5) machine.kill("after an urgent commit");
            else if (!this.losePower(index, "after an urgent commit")) return;
            this.startAgain(index, fault.forMs);
          });
        };
        return true;
      }
      case "roleCrash":
        this.onRoles.push(() => {
          this.world.after(fault.strength * fault.strength * 30, () => {
            if (this.healing) return;
            this.machines[this.index(fault.target)]!.kill("just after a change of roles");
            this.startAgain(this.index(fault.target), fault.forMs);
          });
        });
        return true;
      case "hush":
        this.hush(fault.forMs);
        return true;
      case "burst":
        this.burst(fault.strength < 0.4 ? "controller" : index === A ? "a" : "b", fault.forMs);
        return true;
      case "slowReader": {
        const end = this.machine.ends.find((e) => e !== undefined && !e.closing);
        if (end === undefined) return false;
        end.setReading(false);
        this.lasting(fault.forMs, () => end.setReading(true));
        return true;
      }
      case "diskFull": {
        const disk = this.disks[index as 0 | 1];
        if (disk.full) return false;
        disk.full = true;
        this.lasting(fault.forMs, () => {
          disk.full = false;
          // A commit that did not fit may be heard of only now.
          this.mayFail[index as 0 | 1] = true;
        });
        return true;
      }
      case "foreignBoard": {
        // A spare that belongs to another pair: nobody may follow it, and nothing may be left of it.
        // (A blank disk follows any board: what pair it is meant for, nobody has told it yet.)
        if (this.flashRecord === undefined || this.foreignBoard || this.taintedNow()) return false;
        if (this.heldRecord(A) === undefined || this.heldRecord(B) === undefined) return false;
        const own = this.flash.record;
        this.foreignBoard = true;
        this.world.cover("foreign board");
        this.machines[C]!.kill("another pair's board is put in");
        this.flash.record = foreignRecord(this.flashRecord);
        this.flashRecord = undefined;
        this.machines[C]!.start();
        this.lasting(fault.forMs, () => {
          this.foreignBoard = false;
          this.machines[C]!.kill("the pair's own board is put back");
          this.flash.record = own;
          this.flash.damage = "";
          this.readFlash();
          if (!this.dead.has(C)) this.machines[C]!.start();
        });
        return true;
      }
      case "force":
        this.force(fault);
        return true;
      case "forceLossy":
        return this.forceLossy(fault);
      case "forceAny":
        return this.forceAny(fault);
      case "splitByOldBoard":
        return this.splitByOldBoard(fault);
      case "lateLine":
        return lateLine(this, fault);
      case "serialCut":
      case "serialNoise": {
        const line = this.lines[(index === C ? fault.strength < 0.5 : index === A) ? A : B];
        if (line === undefined) return false;
        if (fault.kind === "serialCut") line.cut = true;
        else line.noise = 0.002 + fault.strength * fault.strength * 0.2;
        this.lasting(fault.forMs, () => {
          line.cut = false;
          line.noise = 0;
        });
        return true;
      }
      case "serialGhost":
      case "serialForge": {
        const to = (index === C ? fault.strength < 0.5 : index === A) ? A : B;
        const line = this.lines[to];
        if (line === undefined) return false;
        if (fault.kind === "serialForge") return this.forge(to, fault);
        line.ghosts = 0.1 + fault.strength * 0.6;
        this.lasting(fault.forMs, () => {
          line.ghosts = 0;
        });
        return true;
      }
      default: {
        const script = SCRIPTS[fault.kind];
        if (script === undefined) throw new Error(`no fault ${fault.kind}`);
        script(this, fault);
        return true;
      }
    }
  }

  private resetChip(told: boolean): boolean {
    const machine = this.machines[C]!;
    if (!machine.alive) return false;
    let open = 0;
    for (const end of machine.ends) {
      if (end === undefined) continue;
      open++;
      if (told) end.cut();
      else end.lose();
    }
    return open > 0;
  }

  /** Packets with a record that the pair never had, right but for the seal: noise that a CRC lets pass, or another device. */
  private forge(to: 0 | 1, fault: Fault): boolean {
    const own = this.faultRandom.fork("forger");
    const again = (left: number): void => {
      const known = this.flashRecord ?? this.heldRecord(to);
      const line = this.lines[to];
      if (known !== undefined && line !== undefined) {
        const record: RoleRecord = {
          ...known,
          epoch: known.epoch + 1 + own.below(3),
          primary: own.chance(0.7) ? ((1 - known.primary) as 0 | 1) : known.primary,
          mode: own.chance(0.7) ? MODE_SOLO : MODE_BOTH,
        };
        const bytes = forgedPacket(this.world, own, NAMES[to]!, record, this.options.serialText);
        line.say(0, bytes);
      }
      if (left > 0) this.soon(1, 40 + fault.strength * 200, () => again(left - 1));
    };
    again(2 + own.below(6));
    return true;
  }

  // --- what scripts are made of ---

  soon(fromMs: number, toMs: number, action: () => void): void {
    this.world.after(this.faultRandom.between(fromMs, toMs), () => {
      if (!this.healing) action();
    });
  }

  /** Kills a process and starts it again some time later. */
  strikeDown(index: number, fromMs: number, toMs: number): void {
    this.machines[index]!.kill("as a script has it");
    this.startAgain(index, this.faultRandom.spread(fromMs, toMs));
  }

  slowPeers(extraMs: number, forMs: number): void {
    const [a, b] = [this.machines[A]!, this.machines[B]!];
    const paths = [this.network.path(a, b), this.network.path(b, a)];
    for (const path of paths) path.extraMs += extraMs;
    this.lasting(forMs, () => {
      for (const path of paths) path.extraMs -= extraMs;
    });
  }

  blockPeers(forMs: number): void {
    this.blockPair(A, B, forMs);
  }

  /** @returns what ends it before its time */
  blockPair(x: number, y: number, forMs: number): () => void {
    const [from, to] = [this.machines[x]!, this.machines[y]!];
    this.network.block(from, to);
    this.network.block(to, from);
    return this.lasting(forMs, () => {
      this.network.unblock(from, to);
      this.network.unblock(to, from);
    });
  }

  /** What the controller says to one server does not come through; what that one says does. @returns what ends it */
  deafen(index: number, forMs: number): () => void {
    const [from, to] = [this.machines[C]!, this.machines[index]!];
    this.network.block(from, to);
    return this.lasting(forMs, () => this.network.unblock(from, to));
  }

  /** What the controller says to the servers takes longer. */
  lateWords(extraMs: number, forMs: number): void {
    const paths = [A, B].map((index) =>
      this.network.path(this.machines[C]!, this.machines[index]!),
    );
    for (const path of paths) path.extraMs += extraMs;
    this.lasting(forMs, () => {
      for (const path of paths) path.extraMs -= extraMs;
    });
  }

  hangFor(index: number, forMs: number): void {
    const machine = this.machines[index]!;
    if (machine.state !== "up") return;
    this.roleChanges.disturbed(this.world.now);
    machine.hang();
    this.lasting(forMs, () => machine.resume());
  }

  slowFlash(extraMs: number, forMs: number): void {
    this.flash.writeMaxMs += extraMs;
    this.lasting(forMs, () => {
      this.flash.writeMaxMs -= extraMs;
    });
  }

  /** The write that has just begun takes this long: a page is being erased. */
  holdFlash(forMs: number): void {
    this.flash.hold(forMs);
  }

  /** A client that hammers at the keys everyone uses, for some time. */
  burst(via: ClientStyle["via"], forMs: number, style: Partial<ClientStyle> = {}): void {
    if (this.healing || this.bursts >= BURSTS_MAX) return;
    this.bursts++;
    const own = this.faultRandom.fork("burst");
    const client = new Client(
      this,
      `burst${this.bursts}`,
      {
        via,
        batchMax: 2,
        open: true,
        pauseMs: own.between(2, 7),
        readShare: own.pick([0.3, 0.6]),
        churnMs: 0,
        pairShare: 0,
        keys: this.keys.slice(0, 2).concat("c0"),
        ...style,
      },
      own,
    );
    this.lasting(forMs, () => {
      client.running = false;
      this.world.after(500, () => client.hangUp(false));
    });
  }

  /** Clients that come through the controller say nothing for a while. */
  hush(forMs: number): void {
    const until = this.world.now + forMs;
    for (const client of this.clients) {
      if (client.style.via === "controller") client.silentUntil = until;
    }
  }

  /** Nobody says anything for a while, at a server's own port neither. */
  silence(forMs: number): void {
    const until = this.world.now + forMs;
    for (const client of this.clients) client.silentUntil = until;
  }

  /** Connections between the servers are reset. */
  cutPeers(): void {
    for (const end of this.machines[A]!.ends) {
      if (end !== undefined && end.peer.machine === this.machines[B]) end.cut();
    }
  }

  /** The controller as it was: an image of its flash from before is written back, or an older board put in. */
  putBack(old: Uint8Array, awayMs: number): void {
    this.machines[C]!.kill("an old board is put in");
    this.flash.record = old;
    this.readFlash();
    this.startAgain(C, awayMs);
  }

  wipeFlash(damage: string, awayMs: number): void {
    this.machines[C]!.kill("its flash is wiped");
    if (damage === "") this.flash.wipe();
    else this.flash.spoil(damage);
    this.flashRecord = undefined;
    this.startAgain(C, awayMs);
  }

  /** A line typed at the console. */
  command(line: string): void {
    const machine = this.machines[C]!;
    const program = this.controller();
    if (program === undefined || machine.state !== "up") return;
    this.roleChanges.disturbed(this.world.now);
    machine.post(() => {
      const answer = program.console(line).split("\n")[0] ?? "";
      this.world.trace.line(this.world.now, "OPERATOR", `${line}: ${answer}`);
    });
  }

  /** Only where nothing can be lost by it: in mode both each server holds all that was acknowledged. */
  private force(fault: Fault): void {
    const record = this.flashRecord;
    if (record === undefined || record.mode === MODE_SOLO || this.taintedNow()) return;
    const target = NAMES[fault.strength < 0.5 ? record.primary : 1 - record.primary]!;
    this.command(`force ${target}`);
    this.soon(1, 60, () => {
      if (this.flashRecord?.epoch === record.epoch) this.command(`force ${target}`);
    });
  }

  /**
   * The one that has the data is gone for long, and the operator forces the other: what the first alone held is lost, and
   * that was accepted. The books of all keys are closed; clients go on with others.
   */
  private forceLossy(fault: Fault): boolean {
    const record = this.flashRecord;
    if (record === undefined || record.mode !== MODE_SOLO || this.taintedNow()) return false;
    const other = (1 - record.primary) as 0 | 1;
    const held = this.heldRecord(other);
    if (held === undefined || this.foreignBoard || this.newestRecord()!.epoch !== record.epoch)
      return false;
    this.machines[record.primary]!.kill("gone for long, says the operator");
    this.startAgain(record.primary, 600 + fault.forMs);
    this.soon(30, 250, () => this.orderForce(other, 8));
    return true;
  }

  /** Force at other moments: no record in flash, a record waited for, nobody to name, a primary that stands alone. */
  private forceAny(fault: Fault): boolean {
    const record = this.flashRecord;
    if (record === undefined || this.taintedNow() || this.foreignBoard) return false;
    if (this.newestRecord()!.epoch !== record.epoch) return false;
    const primary = record.primary;
    const other = (1 - primary) as 0 | 1;
    const solo = record.mode === MODE_SOLO;
    const away = 600 + fault.forMs;
    const gone = (index: number): void => {
      this.machines[index]!.kill("gone for long, says the operator");
      this.startAgain(index, away);
    };
    if (fault.strength < 0.3) {
      // One server alone, and a wiped controller.
      const here = fault.strength < 0.15 ? primary : other;
      gone(1 - here);
      this.wipeFlash("", 5 + fault.forMs * 0.05);
      this.soon(20, 200, () => this.orderForce(here, 10));
      if (fault.strength < 0.05 || fault.strength > 0.25) this.forceOther(here, fault);
    } else if (fault.strength < 0.5) {
      // Both are there, and the operator is faster than the second round.
      this.wipeFlash("", 2);
      this.lateWords(10, 400);
      for (let i = 0; i < 60; i++) this.soon(i * 3, i * 3 + 3, () => this.orderForce(other, 1));
    } else if (solo && fault.strength < 0.8) {
      gone(primary);
      this.machines[C]!.kill("restarted by the operator");
      this.startAgain(C, 2);
      this.soon(20, 200, () => this.orderForce(other, 10));
    } else if (solo) {
      this.orderForce(primary, 2);
    } else {
      gone(primary);
      if (!this.exchangeDisk(other, { ...fault, kind: "diskReplace", forMs: 2 })) return false;
      this.soon(50, 300, () => this.orderForce(other, 10));
    }
    return true;
  }

  /** Once more the other way round: the flash is wiped again, and whoever was away is forced without the one that was not. */
  private forceOther(was: 0 | 1, fault: Fault): void {
    const other = (1 - was) as 0 | 1;
    this.soon(150, 500, () => {
      if (this.healing || this.foreignBoard || this.forcePending || this.flashRecord === undefined)
        return;
      this.machines[was]!.kill("gone for long, says the operator");
      this.startAgain(was, 400 + fault.forMs);
      this.wipeFlash("", 5);
      this.startAgain(other, 1);
      this.soon(20, 200, () => this.orderForce(other, 10));
      this.world.cover("forced on both sides");
    });
  }

  /** Types it, and again, until it is done or has been tried often enough. */
  private orderForce(target: 0 | 1, times: number): void {
    if (times === 0 || this.healing || this.foreignBoard) return;
    const before = this.forcedCount;
    this.mayLose = true;
    this.forceTarget = target;
    this.command(`force ${NAMES[target]!}`);
    this.soon(5, 50, () => {
      if (this.forcedCount === before) this.orderForce(target, times - 1);
    });
  }

  /** An event of the controller's: where an operator, or an old board, has cost data, the books are closed. */
  private onControllerEvent(event: string): void {
    for (let i = this.onEvents.length - 1; i >= 0; i--) {
      if (this.onEvents[i]!.event === event) this.onEvents.splice(i, 1)[0]!.action();
    }
    if (event === "forced") {
      this.forcedCount++;
      if (this.mayLose) {
        this.closeBooks(this.keptByForce());
        this.forcePending = true;
        this.forcedUnheard = true;
      }
      this.mayLose = false;
    } else if (event === "keptBoth" && this.oldBoardAlone && this.hangWhenKept >= 0) {
      this.hangFor(this.hangWhenKept, 900);
      this.hangWhenKept = -1;
    } else if (event === "ALARM" && this.oldBoardAlone) {
      this.oldBoardAlone = false;
      this.world.cover("old board found out");
      this.closeBooks();
    }
  }

  /**
   * The one thing that can split a pair (rule 19): an old board with its old record, put in beside a server that never heard
   * of a later one, while the other is away. It serves, until the other is back; then it must stop.
   */
  private splitByOldBoard(fault: Fault): boolean {
    const record = this.flashRecord;
    if (record === undefined || record.mode !== MODE_BOTH || this.taintedNow()) return false;
    if (this.foreignBoard || this.oldBoardAlone) return false;
    const old = this.flash.record!;
    const stale = (fault.strength < 0.5 ? record.primary : 1 - record.primary) as 0 | 1;
    const other = (1 - stale) as 0 | 1;
    // The stale one is cut off from both, the other goes on without it.
    const cutMs = 500 + fault.forMs;
    this.blockPair(C, stale, cutMs);
    this.blockPeers(cutMs + 200);
    this.soon(cutMs - 150, cutMs - 100, () => {
      const now = this.flashRecord;
      if (now === undefined || now.epoch === record.epoch || now.primary !== other) return;
      if (this.taintedNow() || this.foreignBoard || this.heldRecord(stale)?.epoch !== record.epoch)
        return;
      if (this.heldRecord(other)?.epoch !== now.epoch) return;
      this.machines[other]!.kill("away while an old board is put in");
      this.startAgain(other, 350 + this.faultRandom.between(0, 900));
      this.machines[C]!.kill("an old board is put in");
      this.flash.record = old;
      this.readFlash();
      this.oldBoardAlone = true;
      this.closeBooks();
      this.startAgain(C, 5);
      const way = this.faultRandom.float();
      if (way < 0.35) {
        // The other is back in the middle of a flash write.
        this.onFlashWrite.push(() => {
          this.holdFlash(300);
          this.machines[other]!.start();
          return true;
        });
      } else if (way < 0.6) {
        // The one that served is gone again when the other is back.
        this.hangWhenKept = stale;
      } else if (way < 0.8) {
        // The other is back before it is missed.
        this.soon(60, 230, () => this.machines[other]!.start());
      }
    });
    return true;
  }

  /** One that has stopped for good goes on only when its process is started anew. */
  private restartStopped(): void {
    for (const index of [A, B] as const) {
      const machine = this.machines[index]!;
      const agent = this.agent(index);
      if (agent === undefined || machine.state !== "up") continue;
      const status = agent.core.status(machine.localNow()) as { role: string };
      if (status.role !== "stopped") continue;
      machine.kill("restarted by the operator");
      machine.start();
    }
  }

  /**
   * A controller that restarted in the middle has forgotten that it was forced, and a server keeps what it has confirmed: the
   * order has to be given again.
   */
  private forceAgain(): void {
    if (this.reforcing || this.forcedCount === 0) return;
    this.reforcing = true;
    const before = this.forcedCount;
    const again = (left: number): void => {
      const record = this.flashRecord;
      if (left === 0 || this.forcedCount > before || record?.mode !== MODE_SOLO) {
        this.reforcing = false;
        return;
      }
      this.mayLose = true;
      this.forceTarget = record.primary;
      this.command(`force ${NAMES[record.primary]!}`);
      this.world.after(this.faultRandom.between(20, 120), () => again(left - 1));
    };
    this.world.after(this.faultRandom.between(20, 200), () => again(20));
  }

  /** Both have a history of one epoch of their own and stopped: an operator restarts one, forces it, restarts the other. */
  private chooseAfterSplit(): void {
    const own = this.faultRandom;
    this.choosing = true;
    this.world.after(own.between(20, 400), () => {
      const kept = this.dead.has(A) ? B : this.dead.has(B) ? A : own.pick([A, B] as const);
      this.machines[A]!.kill("restarted by the operator");
      this.machines[B]!.kill("restarted by the operator");
      this.machines[kept]!.start();
      const before = this.forcedCount;
      const again = (left: number): void => {
        if (this.forcedCount === before && left > 0) {
          this.mayLose = true;
          this.forceTarget = kept;
          this.command(`force ${NAMES[kept]!}`);
          this.world.after(own.between(20, 120), () => again(left - 1));
          return;
        }
        this.choosing = false;
        this.mayLose = false;
        if (this.forcedCount > before) {
          this.splitFound = false;
          // The servers found it out and not the controller: there was no alarm to end it.
          this.oldBoardAlone = false;
        }
        if (!this.dead.has(1 - kept)) this.machines[1 - kept]!.start();
        this.restartStopped();
      };
      this.world.after(own.between(20, 300), () => again(40));
    });
  }

  /** Each was forced without the other, and the flash that knew which was the later order is wiped: the operator says it. */
  private chooseForced(): void {
    const own = this.faultRandom;
    const kept = own.pick([A, B] as const);
    const before = this.forcedCount;
    this.choosing = true;
    const again = (left: number): void => {
      const a = this.heldRecord(A);
      const b = this.heldRecord(B);
      const apart = a !== undefined && b !== undefined && areApart(a, b);
      if (left === 0 || this.forcedCount > before || !apart) {
        this.choosing = false;
        this.mayLose = false;
        return;
      }
      if (this.controllerState() === "asking") {
        this.mayLose = true;
        this.forceTarget = kept;
        this.command(`force ${NAMES[kept]!}`);
        this.world.cover("chosen between two that were forced");
      }
      this.world.after(own.between(20, 120), () => again(left - 1));
    };
    this.world.after(own.between(100, 400), () => again(40));
  }

  /** A forced record holds from when it is in flash, or is found there: until then the other may go on. */
  private closeForced(): void {
    if (!this.forcePending) return;
    this.forcePending = false;
    this.closeBooks(this.keptByForce());
    const via = this.forceTarget === A ? "b" : "a";
    if (!this.history.inVain.some((one) => one.via === via && one.to === Infinity)) {
      this.history.inVain.push({ via, from: this.world.now, to: Infinity });
    }
  }

  /**
   * What the operator was told: lost is what the other acknowledged alone. So whoever is forced has all that was acknowledged
   * while the record still named both, its own disk one of them; and one that is primary alone already has everything.
   *
   * @returns until when; -1 where its disk is another, or holds part of a copy, or two histories of one epoch were found. @unit ms
   */
  private keptByForce(): number {
    const target = this.forceTarget;
    const has = (record: RoleRecord | undefined): boolean =>
      record !== undefined &&
      equal(target === A ? record.identityA : record.identityB, this.disks[target].identity);
    if (this.splitFound || this.disks[target].content.get("meta", COPY_ROW) !== undefined)
      return -1;
    const record = this.flashRecord;
    if (record?.mode === MODE_SOLO && record.primary === target && has(record))
      return this.world.now;
    return has(this.lastBoth) ? Math.min(this.apartSince, this.world.now) : -1;
  }

  /**
   * What was acknowledged so far may be gone, by order.
   *
   * @param survives see there: of the keys that were in use until now
   * @param earlier of those that were given up before
   */
  private closeBooks(survives = -1, earlier = survives): void {
    this.closedAt.push(this.world.now);
    for (let i = 0; i < this.survives.length; i++)
      this.survives[i] = Math.min(this.survives[i]!, earlier);
    this.survives.push(survives);
    this.tap.closeBooks();
    this.generation++;
    this.world.cover("lossy force");
    this.appends = (Math.floor(this.appends / APPENDS_MAX) + 1) * APPENDS_MAX;
    this.firstAppendKey = this.appends / APPENDS_MAX;
    this.firstLists.push(this.firstAppendKey);
  }

  /** With durability `memory` the data goes with the power; the agent then takes an empty store and a new identity. */
  losePower(index: number, why: string): boolean {
    const machine = this.machines[index]!;
    if (!this.options.memory || index === C) {
      machine.powerOff(why);
      return true;
    }
    if (!this.mayExchange(index as 0 | 1)) return false;
    machine.powerOff(why);
    this.disks[index as 0 | 1].replace();
    this.tainted[index as 0 | 1] = true;
    return true;
  }

  /** Puts in another disk: an empty one, or one restored from an old backup. */
  exchangeDisk(index: 0 | 1, fault: Fault): boolean {
    if (!this.mayExchange(index)) return false;
    if (fault.kind === "diskRestore" && this.backups[index] === undefined) {
      this.backups[index] = this.disks[index].backup();
      return false;
    }
    this.machines[index]!.kill("its disk is exchanged");
    if (fault.kind === "diskRestore") this.disks[index].restore(this.backups[index]!);
    else this.disks[index].replace();
    this.tainted[index] = true;
    this.startAgain(index, fault.forMs);
    return true;
  }

  private mayExchange(index: 0 | 1): boolean {
    const record = this.flashRecord;
    if (record === undefined || this.taintedNow() || this.foreignBoard) return false;
    // An old board is in: what it says of the roles is not to be relied on.
    if (this.newestRecord()!.epoch !== record.epoch) return false;
    for (const server of [A, B] as const) {
      const held = this.heldRecord(server);
      if (held?.epoch === record.epoch && held.primary !== record.primary) return false;
    }
    // What a solo primary holds is nowhere else: that loss would be the operator's, and the pair rightly waits.
    return record.mode !== MODE_SOLO || record.primary !== index;
  }

  /** Whether some disk has been exchanged and the pair has not taken it in yet. */
  taintedNow(): boolean {
    if (this.oldBoardAlone || this.splitFound || this.foreignBoard) return true;
    const record = this.flashRecord;
    for (const index of [A, B] as const) {
      if (!this.tainted[index] || record === undefined || record.mode === MODE_SOLO) continue;
      const named = index === A ? record.identityA : record.identityB;
      if (equal(named, this.disks[index].identity)) this.tainted[index] = false;
    }
    return this.tainted[A] || this.tainted[B];
  }

  /** Every fault is over; what is not in `dead` is up again. */
  heal(): void {
    this.healing = true;
    this.roleChanges.disturbed(this.world.now);
    this.world.trace.line(
      this.world.now,
      "HEAL",
      `all but [${[...this.dead].map((i) => NAMES[i]).join()}]`,
    );
    for (const active of this.active.splice(0)) this.end(active);
    this.onFlashWrite.length = 0;
    this.onRoles.length = 0;
    this.onAsked.length = 0;
    this.onEvents.length = 0;
    this.flash.failNext = false;
    for (const disk of this.disks) {
      disk.stalledUntil = 0;
      disk.failNext = false;
      disk.onUrgent = undefined;
      disk.mend();
    }
    for (let i = 0; i < 3; i++) {
      const machine = this.machines[i]!;
      if (this.dead.has(i)) machine.kill("stays dead");
      else machine.start();
    }
  }

  revive(): void {
    this.roleChanges.disturbed(this.world.now);
    for (const index of this.dead) {
      this.dead.delete(index);
      this.machines[index]!.start();
    }
  }

  /**
   * Whether ROLES.md says that the pair must wait: the record names a disk that is gone, or names solo a
   * server that is dead, or the flash is blank and a server is dead.
   */
  mayWait(): string {
    this.readFlash();
    if (this.choosing || this.oldBoardAlone) return "";
    if (this.splitFound) return "two histories of one epoch";
    // One that has raised an alarm acts as wiped, whatever its flash holds.
    const state = this.controllerState();
    if ((state === "blank" || state === "asking") && this.dead.size > 0) {
      return "flash blank and a machine dead";
    }
    const record = this.newestRecord();
    // An old board's record is found out by the first server that knows better; then it is as good as none.
    if (this.flashRecord === undefined || record!.epoch > this.flashRecord.epoch) {
      if (this.dead.size > 0) return "flash blank and a machine dead";
      if (record === undefined) return "";
    }
    const lives = (index: 0 | 1): boolean =>
      !this.dead.has(index) &&
      equal(index === A ? record!.identityA : record!.identityB, this.disks[index].identity);
    const other = (1 - record!.primary) as 0 | 1;
    if (lives(record!.primary)) return "";
    if (record!.mode === MODE_SOLO) return "solo, and its server is gone";
    return lives(other) ? "" : "both disks of the record are gone";
  }

  /** The record that was in flash so many records ago. */
  recordsBefore(count: number): Uint8Array | undefined {
    return this.pastRecords[this.pastRecords.length - 1 - count];
  }

  backUp(index: 0 | 1): void {
    this.backups[index] = this.disks[index].backup();
  }

  restore(index: 0 | 1): void {
    this.disks[index].restore(this.backups[index]!);
  }

  /** The next failure of this disk is meant. */
  allowDiskFailure(index: 0 | 1): void {
    this.mayFail[index] = true;
  }

  private controllerState(): string {
    const controller = this.controller();
    if (controller === undefined) return "";
    const status = controller.status() as { state?: string };
    return status.state ?? "";
  }

  agent(index: 0 | 1): AgentProgram | undefined {
    const program = this.machines[index]!.program;
    return program instanceof AgentProgram ? program : undefined;
  }

  controller(): Controller | undefined {
    return this.machines[C]!.program as Controller | undefined;
  }
}

function recordOf(bytes: Uint8Array): RoleRecord | undefined {
  const record = decodeRecord(bytes, 0, bytes.length);
  return record !== undefined && "malformed" in record ? undefined : record;
}

function equal(x: Uint8Array, y: Uint8Array): boolean {
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return false;
  return x.length === y.length;
}

/** A SEALED frame whose seal is nobody's, another key's, or meant for another boot, in a packet without a fault. */
function forgedPacket(
  world: World,
  own: Random,
  id: string,
  record: RoleRecord,
  asText: boolean,
): Uint8Array {
  const forced = own.chance(0.5);
  const message = encodeControl({ kind: KIND_RECORD, record, fresh: own.chance(0.5), forced });
  const way = own.below(3);
  let frame: Uint8Array;
  if (way === 0) {
    const payload = new Uint8Array(SEAL_BYTES + message.length);
    payload.set(own.bytes(SEAL_BYTES));
    payload.set(message, SEAL_BYTES);
    frame = frameOf(FRAME_SEALED, 0, 0, payload);
  } else {
    const key = way === 1 ? own.bytes(KEY.length) : KEY;
    frame = sealedFrame(world.hmac, key, own.bytes(16), id, message);
  }
  const form = asText ? FORM_TEXT : FORM_BINARY;
  return encodeSerial(form, SIDE_CONTROLLER, own.below(256), frame, 0, frame.length, crc32);
}

/** A sound record of a pair that is not ours. */
function foreignRecord(record: RoleRecord): Uint8Array {
  return encodeRecord({
    ...record,
    epoch: record.epoch + 3,
    pairId: record.pairId.map((byte) => byte ^ 0x5a),
  });
}
