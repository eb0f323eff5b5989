/**
 * The controller: the one place that branches on the pair's state.
 *
 *     servers ── reports, heartbeats ──> information ──> fault monitor ─┐
 *     flash ──── record ────────────────────────────────> election ─────┤ proposals
 *     operator ─ console ───────────────────────────────> operator ─────┤
 *                                        failover, rejoin ──────────────┘
 *                                              │
 *        propose: route closed ─> flash ─> onPersisted: record, epoch to both ─> route open
 *
 * Leaves propose, this file disposes: it takes a proposal only when the state table knows the event, has
 * the record in flash before any message tells of it (rule 2), and handles one thing at a time, so that
 * replies and record changes never overlap (G3).
 */
import { assert } from "./assert.js";
import type { CoreConfig } from "./config.js";
import { answerLine } from "./console.js";
import type { ConsoleHost } from "./console.js";
import type { ConnectionKind, ControllerCore, FlashState } from "./core.js";
import {
  DRAIN,
  HANDSHAKE,
  JUDGE,
  ORDER,
  POLL,
  POWER_ON,
  REPEAT,
  SERIAL_POLL,
  SETTLE,
  createDeadlines,
} from "./deadlines.js";
import { secondRound, whenFlashBlank, whenFlashIntact } from "./election.js";
import type { Verdict } from "./election.js";
import {
  WITH_FAST_POLL,
  WITH_LIMITS_CHECK,
  WITH_SERIAL_LINES,
  WITH_STATUS_JSON,
} from "./features.js";
import { guardCore } from "./guard.js";
import {
  overrule,
  primaryFailed,
  primaryFailedText,
  switchedOver,
  takeBack,
  whenBoth,
  whyNoSwitchover,
} from "./failover.js";
import {
  FAULT_NETWORK,
  FAULT_NONE,
  FAULT_SILENT,
  faultText,
  judge,
  judgeHeard,
  judgeLine,
  lineAlive,
  nextJudgement,
  pathsText,
} from "./fault-monitor.js";
import { fencingOf } from "./fencing.js";
import type { Forwarder } from "./forward.js";
import {
  HEARD_ALIVE,
  HEARD_ALL,
  HEARD_NOTHING,
  HEARD_OTHER_LINK,
  addLine,
  createServerView,
  heartbeatHeard,
  lineHeard,
  linePollSent,
  linkClosed,
  linkOpened,
  pollSent,
  sawLife,
  shareNames,
} from "./information.js";
import type { ServerView } from "./information.js";
import { EPOCH_MAX, checkLimits } from "./limits.js";
import { createServerLinks } from "./link.js";
import { isBraking, loadPermille, reportedServiceUs } from "./load.js";
import { createNonceSource, sessionOf } from "./nonce.js";
import { mayCarryOut, orderForce, orderNewPair, whyChanged } from "./operator.js";
import type { Confirmed, Order } from "./operator.js";
import {
  aboveHeard,
  hasOtherDisk,
  idOf,
  mayBeNamed,
  otherOf,
  recordText,
  whyNotCompacted,
} from "./pair.js";
import type { Pair, Proposal } from "./pair.js";
import type { ControllerPorts, ForwardEvents } from "./ports.js";
import { whenAsked } from "./rejoin.js";
import { nextState } from "./role-table.js";
import type { RoleEvent } from "./role-table.js";
import { isCalm, linePassed, nextButPolls } from "./rounds.js";
import type { Rounds } from "./rounds.js";
import { closedRoute, routeOf, sameRoute } from "./route.js";
import { pathsOf } from "./serial-paths.js";
import { statusOf } from "./status.js";
import type { LineStatus } from "./status.js";
import {
  LEVEL_DEBUG,
  LEVEL_ERROR,
  LEVEL_INFO,
  LEVEL_NAMES,
  LEVEL_WARN,
  createTrace,
  seconds,
} from "./trace.js";
import { readU32 } from "../../protocol/frame.js";
import { isMalformed } from "../../protocol/malformed.js";
import {
  REFUSE_MALFORMED,
  REFUSE_PAIR,
  REFUSE_STOPPED,
  SESSION_ID_BYTES,
  decodeHeartbeat,
  encodePoll,
  takeGauges,
} from "../../protocol/messages.js";
import type { Heartbeat } from "../../protocol/messages.js";
import {
  MODE_BOTH,
  MODE_SOLO,
  areApart,
  bytesEqual,
  decodeRecord,
  encodeRecord,
  epochOf,
  recordsEqual,
} from "../../protocol/record.js";
import type { ServerIndex } from "../../protocol/record.js";

/** The forward path is handed in, so that the control path can be tried without it. */
export type CreateForwarder = (
  config: CoreConfig,
  ports: ControllerPorts,
  events: ForwardEvents,
) => Forwarder;

/** Most steps one event can cause: each is a row of the state table, and no rule goes in a circle. */
const STEPS_MAX = 8;

export function createController(
  config: CoreConfig,
  ports: ControllerPorts,
  createForwarder: CreateForwarder,
): ControllerCore {
  const t = config.timings;
  if (WITH_LIMITS_CHECK) checkLimits(t, config.limits);
  const trace = createTrace(config.limits.traceEntries);
  const deadlines = createDeadlines();
  const nonces = createNonceSource(ports.hmac, config.key, config.seed);
  const pair: Pair = {
    config: config,
    state: "off",
    because: "not started",
    startedAt: 0,
    firstHeardAt: -1,
    record: undefined,
    fresh: false,
    forced: false,
    writing: undefined,
    flashFull: false,
    alarm: "",
    epochHeard: 0,
    waits: "",
    servers: [
      createServerView(0, config.servers[0].id, 0),
      createServerView(1, config.servers[1].id, 0),
    ],
    snapshots: [],
  };

  /** Set when something a rule looks at has changed; the rules are asked before the event is over. */
  let dirty = false;
  /** What the home has been told of, or a count that no longer says so (wantsTick). */
  let stirsTold = 0;
  /** Heartbeats that lines have brought, which a tick is to look at. */
  let lineStirs = 0;
  let traceOn = false;
  /** When the home was last asked to call, to know how late it came. */
  let wakeAt = 0;
  let lateTurns = 0;
  let worstLateMs = 0;
  /** In a late turn the home is asked to hand in first what lies unread; once a turn. */
  let readFirst = false;
  /** Both servers are silent at once: the fault is more likely our own cable (no change of roles). */
  let outage = false;
  /** An alarm that came while the flash was being written. */
  let alarmPending = "";
  /** The event that proposed the record on its way into flash. */
  let writingEvent: RoleEvent = "adopted";
  let writingBecause = "";
  /** An operator's order that waits for the answer to the latest poll: force, as it was announced and confirmed. */
  let orderedForce: Confirmed | undefined = undefined;
  /** The disk of a new pair that waits for the same. */
  let orderedPair: Uint8Array | undefined = undefined;
  /** A planned switchover's text, and whether it no longer waits for open commands. */
  let drainBecause = "";
  let drainedLate = false;
  let routeNow = closedRoute();
  /** Whether the forward path knows a server's link. */
  const forwarding = [false, false];
  const frameMax = [0, 0];
  const windowBytes = [0, 0];
  /** A fault the forward path found in a server's stream; its link is dropped when the event is over. */
  const faults = ["", ""];
  const isServer: boolean[] = [];
  let firstNonce: Uint8Array | undefined = undefined;
  let generation = 0;
  let idsUsedUp = false;
  const noSession = new Uint8Array(SESSION_ID_BYTES);
  let session: Uint8Array = noSession;
  let roleChanges = 0;
  /** Stays when a new record has ended the alarm, so that nobody overlooks that there was one. */
  let lastAlarm = "";

  function note(level: number, event: string, text: string, now: number): void {
    if (level === LEVEL_DEBUG && !traceOn) return;
    trace.add(now, level, event, text);
    ports.note(LEVEL_NAMES[level], event, text === "" ? undefined : { text: text });
  }

  const forwarder = createForwarder(config, ports, {
    onFirstPassed: function (epoch: number): void {
      if (pair.record === undefined || epoch !== pair.record.epoch || !pair.fresh) return;
      // A take-back under way has closed this primary's link, so nothing of its can pass any more.
      assert(
        pair.writing === undefined || writingEvent !== "takenBack",
        "no reply passes a take-back",
      );
      becamePassed();
    },
    onPeerFault: function (server: ServerIndex, reason: string): void {
      faults[server] = reason;
      links.mute(server);
    },
    onIdsUsedUp: function (): void {
      idsUsedUp = true;
    },
  });

  const links = createServerLinks(config, ports, nonces, {
    sessionFor: function (nonce: Uint8Array): Uint8Array {
      return firstNonce === undefined ? sessionOf(nonce, generation) : session;
    },
    onProven: function (nonce: Uint8Array): void {
      if (firstNonce !== undefined) return;
      firstNonce = nonce;
      takeSession();
    },
    isAlive: function (server: ServerIndex, now: number): boolean {
      catchUp();
      const view = pair.servers[server];
      return view.answered || (view.fault === FAULT_NONE && now - view.aliveAt <= 2 * t.pollMs);
    },
    onReport: function (server, linkNonce, report, linkFrameMax, linkWindowBytes, now): string {
      return onReport(server, linkNonce, report, linkFrameMax, linkWindowBytes, now);
    },
    onAnnounce: function (server: ServerIndex, now: number): void {
      pair.servers[server].announced = true;
      note(LEVEL_INFO, "announced", idOf(pair, server) + " is the preset server", now);
      dirty = true;
    },
    onAsk: function (server: ServerIndex, now: number): void {
      catchUp();
      // What counts is the answer to the latest poll, which repeats the request: get one at once.
      if (pair.servers[server].answered) pollServer(pair.servers[server], now);
    },
    onReply: forwarder.onReply,
    onReplyEpoch: forwarder.onReplyEpoch,
    onLife: function (server: ServerIndex, now: number): void {
      sawLife(pair.servers[server], now);
    },
    onLost: function (server: ServerIndex, why: string, ours: boolean, now: number): void {
      onLost(server, why, ours, now);
    },
    note: note,
  });

  // ---- ordinary rounds of polls, which a home carries out ----

  function pollBytes(view: ServerView): Uint8Array {
    return encodePoll({
      counter: view.counter,
      linkNonce: view.linkNonce,
      sessionId: session,
      epoch: epochOf(pair.record),
    });
  }

  const rounds: Rounds = {
    catchUp: undefined,
    servers: pair.servers,
    timings: t,
    deadlines: deadlines,
    pollOf: pollBytes,
    calmUntil: function () {
      if (
        dirty ||
        readFirst ||
        outage ||
        idsUsedUp ||
        alarmPending !== "" ||
        orderedForce !== undefined ||
        orderedPair !== undefined ||
        !isCalm(pair)
      ) {
        return -1;
      }
      return nextButPolls(pair, deadlines);
    },
    isIdle: forwarder.isIdle,
    lines: undefined,
    look: function (now) {
      deadlines.set(HANDSHAKE, links.tick(now));
    },
    measured: function (server, bytes) {
      takeGauges(pair.servers[server].said!, bytes);
      setReported(pair.servers[server]);
    },
    loaded: function (server, bytes) {
      const load = bytes[0]! * 256 + bytes[1]!;
      forwarder.setReported(
        server,
        load < 1000 ? load : 1000,
        pair.servers[server].said!.braking,
        readU32(bytes, 2),
      );
    },
    passed: function (pollAt, late, worstMs) {
      lateTurns += late;
      if (worstMs > worstLateMs) worstLateMs = worstMs;
      deadlines.set(POLL, pollAt);
      wakeAt = pollAt;
    },
  };

  /** Before anything is read that an ordinary round changes. */
  function catchUp(): void {
    if (WITH_FAST_POLL && rounds.catchUp !== undefined) rounds.catchUp(true);
  }

  /** The same where nothing that servers measure is read. */
  function catchUpPolls(): void {
    if (WITH_FAST_POLL && rounds.catchUp !== undefined) rounds.catchUp(false);
  }

  // ---- words to and from the servers ----

  function takeSession(): void {
    session = sessionOf(firstNonce!, generation);
    forwarder.setSession(session);
  }

  function pollServer(view: ServerView, now: number): void {
    pollSent(view, now);
    ports.poll(view.index, pollBytes(view));
  }

  const lines = pathsOf(config, ports, function (server, bytes, now): void {
    lineHeartbeat(server, bytes, now);
  });
  if (WITH_FAST_POLL && WITH_SERIAL_LINES) {
    const packets = lines.past!;
    rounds.lines = {
      packetOf: function (view) {
        return packets.packetOf(view, session, pair.record);
      },
      lastNumber: packets.lastNumber,
      passed: function (view, past, bytes) {
        packets.count(view.index, past.count - past.unsent, past.unsent, past.heard);
        linePassed(view.line!, past, bytes);
      },
    };
  }

  const fencing = fencingOf(pair, ports, deadlines, note);

  /** Polls a server on its serial line, and tells it there what its network keeps from it. */
  function pollLine(view: ServerView, now: number): void {
    const line = view.line;
    if (line === undefined) return;
    linePollSent(line, now);
    lines.poll(view, session, pair.record);
    tellByLine(view);
  }

  function tellByLine(view: ServerView): void {
    const record = pair.record;
    const line = view.line;
    if (record === undefined || line === undefined || line.said === undefined || !line.up) return;
    if (view.linked && view.fault === FAULT_NONE) return;
    if (epochOf(line.said.record) >= record.epoch || foreignText(line.said) !== "") return;
    lines.tell(view, record, pair.fresh, pair.forced);
  }

  function lineHeartbeat(server: ServerIndex, bytes: Uint8Array, now: number): void {
    lineStirs++;
    const heard = decodeHeartbeat(bytes, 0, bytes.length);
    const view = pair.servers[server];
    if (isMalformed(heard)) {
      note(LEVEL_DEBUG, "bad heartbeat", view.id + " by serial: " + heard.malformed, now);
      return;
    }
    const line = view.line!;
    const stranger = line.strangerId;
    const counts = lineHeard(view, line, heard);
    if (line.strangerId !== "" && line.strangerId !== stranger) {
      note(
        LEVEL_WARN,
        "wrong line",
        "the serial line of " + view.id + " leads to " + line.strangerId,
        now,
      );
    }
    if (counts === HEARD_NOTHING) return;
    judgeLineNow(view, now);
    judgeEvent(view, now);
    if (counts === HEARD_ALIVE || foreignText(heard) !== "") return;
    checkRecord(heard, view, now);
    dirty = true;
  }

  function judgeLineNow(view: ServerView, now: number): void {
    if (!judgeLine(view, t, now)) return;
    const up = view.line!.up;
    note(up ? LEVEL_INFO : LEVEL_WARN, "serial line", view.id + ": " + pathsText(view), now);
    dirty = true;
  }

  /** Why what a server says cannot come from this pair; "" when it can. */
  function foreignText(heard: Heartbeat): string {
    const record = heard.record;
    if (record === undefined) return "";
    if (record.epoch > EPOCH_MAX) return "its record has an impossible epoch";
    if (pair.record === undefined || bytesEqual(record.pairId, pair.record.pairId)) return "";
    return "it belongs to another pair";
  }

  /** Rule 19: an epoch above our own, or our own with other content, means that our flash is not the pair's. */
  function checkRecord(heard: Heartbeat, view: ServerView, now: number): void {
    const record = heard.record;
    if (record === undefined) return;
    if (record.epoch > pair.epochHeard) pair.epochHeard = record.epoch;
    const own = pair.record;
    if (own === undefined || record.epoch < own.epoch || recordsEqual(record, own)) return;
    if (view.index !== own.primary && areApart(own, record)) return;
    alarm(
      record.epoch > own.epoch
        ? view.id + " has epoch " + record.epoch + ", above this controller's " + own.epoch
        : view.id + " has another record of epoch " + own.epoch,
      now,
    );
  }

  function onReport(
    server: ServerIndex,
    linkNonce: Uint8Array,
    report: Heartbeat,
    linkFrameMax: number,
    linkWindowBytes: number,
    now: number,
  ): string {
    catchUp();
    const view = pair.servers[server];
    const foreign = foreignText(report);
    if (foreign !== "") return foreign;
    heardSomeone(now);
    if (pair.record !== undefined) shareNames(report, pair.record, server);
    linkOpened(view, linkNonce, report, now);
    frameMax[server] = linkFrameMax;
    windowBytes[server] = linkWindowBytes;
    note(LEVEL_INFO, "connected", view.id + (report.blank ? " (blank)" : ""), now);
    checkRecord(report, view, now);
    // An alarm has just dropped every link, this one too.
    if (!view.linked) return "";
    tellServer(server, now);
    setReported(view);
    pollServer(view, now);
    judgeEvent(view, now);
    dirty = true;
    return "";
  }

  /** Has a server adopt our record and take commands under it, in this order (rule 2, epoch by position). */
  function tellServer(server: ServerIndex, now: number): void {
    const record = pair.record;
    const connection = links.connectionOf(server);
    if (record === undefined || connection < 0) return;
    links.sendRecord(server, record, pair.fresh, pair.forced);
    links.sendEpoch(server, record.epoch);
    if (record.mode === MODE_SOLO && !pair.fresh) links.sendPassed(server, record.epoch);
    // A disk that the record does not name may neither serve nor answer.
    if (!forwarding[server] && !hasOtherDisk(record, pair.servers[server])) {
      forwarding[server] = true;
      forwarder.linkUp(server, connection, frameMax[server], windowBytes[server], now);
    }
  }

  function onLost(server: ServerIndex, why: string, ours: boolean, now: number): void {
    catchUp();
    const view = pair.servers[server];
    linkClosed(view, !ours, now);
    view.probeByLine = lineAlive(view, t, now);
    if (forwarding[server]) {
      forwarding[server] = false;
      forwarder.linkDown(server, now);
    }
    note(LEVEL_INFO, "disconnected", view.id + ": " + why, now);
    // No path may be left untried: a poll answers at once, or the server has failed.
    pollServer(view, now);
    pollLine(view, now);
    dirty = true;
  }

  function setReported(view: ServerView): void {
    const load = loadPermille(view);
    if (load === undefined) return;
    forwarder.setReported(view.index, load, isBraking(view), reportedServiceUs(view));
  }

  function heardSomeone(now: number): void {
    if (pair.firstHeardAt < 0) pair.firstHeardAt = now;
    if (!outage) return;
    // Nobody could be heard: the other gets a whole limit from now on, or our own cable would cost a switch.
    outage = false;
    for (let i = 0; i < 2; i++) {
      const view = pair.servers[i];
      view.silentFrom = now;
      if (!view.linked && view.linkDownAt < now) view.linkDownAt = now;
      judgeEvent(view, now);
    }
  }

  /** Looks at the limits of time; only a turn may, which knows whether our own loop was late. */
  function judgeTurn(view: ServerView, now: number, late: boolean): void {
    const was = view.fault;
    if (judge(view, t, now, late)) pollServer(view, now);
    judged(view, was, now);
  }

  /** Something was heard of a server. */
  function judgeEvent(view: ServerView, now: number): void {
    const was = view.fault;
    judgeHeard(view, t, now);
    judged(view, was, now);
  }

  function judged(view: ServerView, was: number, now: number): void {
    if (view.fault === was) return;
    dirty = true;
    if (view.fault !== FAULT_NONE) note(LEVEL_WARN, "failed", faultText(view, t), now);
    else note(LEVEL_INFO, "works again", view.id, now);
  }

  // ---- states ----

  function move(event: RoleEvent, because: string, now: number): void {
    const next = nextState(pair.state, event);
    assert(next !== undefined, "an event of the state table: " + event + " in " + pair.state);
    pair.state = next!;
    pair.because = because;
    note(LEVEL_INFO, event, pair.state + ": " + because, now);
    dirty = true;
  }

  /** Takes a proposal: closes the route, and has the record in flash before anybody hears of it. */
  function propose(proposal: Proposal, now: number): void {
    assert(pair.writing === undefined, "one record is written at a time");
    assert(proposal.record.epoch > epochOf(pair.record), "a new record has a new epoch");
    const record = aboveHeard(pair, proposal.record);
    const old = pair.record;
    writingEvent = proposal.event;
    writingBecause = proposal.because;
    pair.writing = record;
    deadlines.clear(DRAIN);
    deadlines.clear(POWER_ON);
    deadlines.clear(SETTLE);
    move(proposal.event, proposal.because, now);
    // These two go against what the old primary may still acknowledge: nothing of its may pass from here on.
    if ((proposal.event === "takenBack" || proposal.event === "forced") && old !== undefined) {
      if (old.primary !== record.primary) {
        links.drop(old.primary, 0, "its record is taken back", true, now);
      }
    }
    applyRoute(now);
    ports.persist(encodeRecord(record));
  }

  function persisted(now: number): void {
    catchUp();
    const record = pair.writing;
    assert(record !== undefined, "a record was being written");
    const old = pair.record;
    pair.writing = undefined;
    pair.flashFull = false;
    if (record!.epoch > pair.epochHeard) pair.epochHeard = record!.epoch;
    if (alarmPending !== "") {
      move("persistedStopped", "this controller has stopped and acts as wiped", now);
      stop(alarmPending, now);
      return;
    }
    pair.record = record;
    // Nothing was acknowledged by anyone but through a record in which the other one holds it too.
    pair.fresh =
      record!.mode === MODE_SOLO &&
      (writingEvent === "takenBack" ||
        writingEvent === "newPair" ||
        (old !== undefined && old.mode === MODE_BOTH && writingEvent !== "forced"));
    pair.forced =
      writingEvent === "forced" ||
      writingEvent === "overruled" ||
      (pair.forced && record!.mode === MODE_SOLO);
    pair.alarm = "";
    pair.waits = "";
    pair.snapshots = [];
    roleChanges++;
    move(record!.mode === MODE_BOTH ? "persistedBoth" : "persistedSolo", writingBecause, now);
    note(LEVEL_WARN, "record", recordText(pair, record!) + ": " + writingBecause, now);
    tellServer(0, now);
    tellServer(1, now);
    if (
      old !== undefined &&
      old.primary !== record!.primary &&
      (writingEvent === "failover" || writingEvent === "takenBack")
    ) {
      fencing.failedOver(old.primary, now);
    }
    for (let i = 0; i < 2; i++) {
      // A server that hangs gets a new connection when it wakes, with nothing of the old epoch in it.
      const view = pair.servers[i];
      if (view.fault === FAULT_SILENT || view.fault === FAULT_NETWORK) {
        links.drop(view.index, 0, "silent for too long", true, now);
        tellByLine(view);
      }
    }
  }

  function mayCompact(writeWaits: boolean, now: number): boolean {
    // After an alarm the record in flash counts for nothing, and the write must end before it is acted on.
    const why = alarmPending === "" ? whyNotCompacted(pair) : "";
    const waits = writeWaits && why !== "";
    if (waits && !pair.flashFull) note(LEVEL_WARN, "flash full", why, now);
    pair.flashFull = waits;
    return why === "";
  }

  function becamePassed(): void {
    pair.fresh = false;
    deadlines.clear(SETTLE);
    links.sendPassed(pair.record!.primary, pair.record!.epoch);
  }

  function alarm(text: string, now: number): void {
    if (pair.state === "blank" || pair.state === "asking") return;
    note(LEVEL_ERROR, "ALARM", text, now);
    pair.alarm = text;
    lastAlarm = seconds(now) + " " + text;
    if (pair.state === "writing") {
      alarmPending = text;
      move("alarm", text, now);
      return;
    }
    move("alarm", "this controller has stopped and acts as wiped", now);
    stop(text, now);
  }

  /** Acts as wiped: forgets the record, and hears both servers on new connections only (rule 19). */
  function stop(text: string, now: number): void {
    alarmPending = "";
    pair.alarm = text;
    pair.record = undefined;
    pair.fresh = false;
    pair.forced = false;
    pair.snapshots = [];
    pair.waits = "both servers to report on new connections";
    deadlines.clear(DRAIN);
    deadlines.clear(POWER_ON);
    deadlines.clear(SETTLE);
    applyRoute(now);
    links.drop(0, REFUSE_STOPPED, "this controller has stopped: " + text, false, now);
    links.drop(1, REFUSE_STOPPED, "this controller has stopped: " + text, false, now);
  }

  /** Asks the rules until nothing changes. */
  function settle(now: number): void {
    if (WITH_FAST_POLL && (dirty || idsUsedUp || faults[0] !== "" || faults[1] !== "")) catchUp();
    for (let i = 0; i < 2; i++) {
      if (faults[i] === "") continue;
      const reason = faults[i];
      faults[i] = "";
      const server: ServerIndex = i === 0 ? 0 : 1;
      note(LEVEL_WARN, "peer fault", idOf(pair, server) + ": " + reason, now);
      // No refusal: on a new link everything is asked again, and the sooner the better.
      links.drop(server, 0, reason, false, now);
    }
    if (idsUsedUp) renewSession(now);
    if (!dirty) return;
    stirsTold = -1;
    let steps = 0;
    while (dirty) {
      dirty = false;
      step(now);
      steps++;
      assert(steps <= STEPS_MAX, "the rules come to rest");
    }
    applyRoute(now);
  }

  function renewSession(now: number): void {
    idsUsedUp = false;
    note(LEVEL_INFO, "session renewed", "ids were used up", now);
    links.drop(0, 0, "ids are used up, dial again", false, now);
    links.drop(1, 0, "ids are used up, dial again", false, now);
    generation++;
    takeSession();
  }

  function step(now: number): void {
    if (orderedForce !== undefined || orderedPair !== undefined) stepOrder(now);
    switch (pair.state) {
      case "blank":
        stepBlank(now);
        break;
      case "asking":
        stepAsking(now);
        break;
      case "waiting":
        stepWaiting(now);
        break;
      case "both":
      case "draining":
      case "dark":
        stepBoth(now);
        break;
      case "solo":
      case "stranded":
        stepSolo(now);
        break;
      default:
        break;
    }
  }

  function stepBlank(now: number): void {
    const a = pair.servers[0].linked;
    const b = pair.servers[1].linked;
    if (!a || !b) {
      pair.waits =
        (a ? idOf(pair, 1) : b ? idOf(pair, 0) : "both servers") +
        " to report: the flash holds no record, so both must be heard";
      return;
    }
    move("bothReported", "both servers have reported", now);
    askAgain(now);
  }

  function askAgain(now: number): void {
    pair.snapshots = [];
    for (let i = 0; i < 2; i++) {
      const view = pair.servers[i];
      pair.snapshots.push({ at: now, record: view.said!.record, identity: view.said!.identity });
      pollServer(view, now);
    }
    pair.waits = "both servers to say the same once more";
  }

  function stepAsking(now: number): void {
    if (!pair.servers[0].linked || !pair.servers[1].linked) {
      pair.snapshots = [];
      move("reportLost", "a server's link was lost while both were being asked", now);
      return;
    }
    const round = secondRound(pair);
    if (round === "wait") return;
    if (round === "other") {
      move("saidOtherwise", "a server said something else the second time", now);
      askAgain(now);
      return;
    }
    follow(whenFlashBlank(pair, newPairId(), now), now);
  }

  function newPairId(): Uint8Array {
    const parts: Uint8Array[] = [];
    for (let i = 0; i < 2; i++) {
      const said = pair.servers[i].said;
      parts.push(pair.servers[i].linkNonce);
      if (said !== undefined) parts.push(said.identity);
    }
    return nonces.pairId(parts);
  }

  /** Carries out what a power-on rule has decided. */
  function follow(verdict: Verdict, now: number): void {
    if (verdict.proposal !== undefined) {
      propose(verdict.proposal, now);
      return;
    }
    pair.waits = verdict.why;
    if (verdict.until !== Infinity) deadlines.set(POWER_ON, verdict.until);
    else deadlines.clear(POWER_ON);
  }

  function stepWaiting(now: number): void {
    const record = pair.record!;
    const verdict = whenFlashIntact(pair, record, now);
    if (!verdict.keep) {
      follow(verdict, now);
      return;
    }
    pair.waits = "";
    deadlines.clear(POWER_ON);
    move(record.mode === MODE_BOTH ? "keptBoth" : "keptSolo", verdict.why, now);
  }

  function stepBoth(now: number): void {
    const record = pair.record!;
    const proposal = whenBoth(pair, record, now);
    if (proposal !== undefined) {
      propose(proposal, now);
      return;
    }
    const failed = primaryFailed(pair, record);
    if (failed !== (pair.state === "dark")) {
      if (failed) {
        deadlines.clear(DRAIN);
        move("primaryGone", primaryFailedText(pair, record), now);
      } else {
        move("primaryBack", idOf(pair, record.primary) + " works again", now);
      }
      return;
    }
    if (pair.state === "draining") stepDraining(now);
  }

  function stepDraining(now: number): void {
    const record = pair.record!;
    if (deadlines.due(DRAIN, now)) {
      if (drainedLate) {
        deadlines.clear(DRAIN);
        move("drainEnded", "the switchover was given up: the standby answers no poll", now);
        return;
      }
      // What is open is asked again at the new primary; only the standby's answer is still waited for.
      drainedLate = true;
      deadlines.set(DRAIN, now + t.failureMs);
    }
    if (forwarder.openCount() > 0 && !drainedLate) return;
    const why = whyNoSwitchover(pair);
    if (why !== "") {
      deadlines.clear(DRAIN);
      move("drainEnded", "the switchover was given up: " + why, now);
    } else if (mayBeNamed(pair, record, otherOf(record.primary), now)) {
      propose(switchedOver(record, drainBecause), now);
    }
  }

  function stepSolo(now: number): void {
    const record = pair.record!;
    const proposal = takeBack(pair, record, now);
    if (proposal !== undefined) {
      propose(proposal, now);
      return;
    }
    const failed = primaryFailed(pair, record);
    if (failed !== (pair.state === "stranded")) {
      deadlines.clear(SETTLE);
      if (failed) move("primaryGone", primaryFailedText(pair, record), now);
      else move("primaryBack", idOf(pair, record.primary) + " works again", now);
      return;
    }
    if (failed) return;
    let next = overrule(pair, record, now);
    if (next === undefined) next = whenAsked(pair, record, now);
    if (next !== undefined) {
      propose(next, now);
      return;
    }
    if (pair.fresh) stepFresh(now);
  }

  /**
   * Without clients no reply ever passes, and local ports would wait for ever (G5). So once the primary has
   * been seen to live in the new epoch for a while, the right to take it back is given up: that only
   * narrows what this controller may do.
   */
  function stepFresh(now: number): void {
    const record = pair.record!;
    const view = pair.servers[record.primary];
    if (view.said === undefined || !recordsEqual(view.said.record, record)) {
      deadlines.clear(SETTLE);
      return;
    }
    if (!deadlines.isSet(SETTLE)) deadlines.set(SETTLE, now + 2 * t.failureMs);
    if (!deadlines.due(SETTLE, now)) return;
    if (view.answered) becamePassed();
    else deadlines.set(SETTLE, now + t.pollMs);
  }

  /** Tells the forward path where commands may go, when that has changed. */
  function applyRoute(now: number): void {
    if (sameRoute(pair, routeNow)) return;
    routeNow = routeOf(pair, routeNow.epoch);
    forwarder.setRoute(routeNow, now);
  }

  // ---- events of the home ----

  function start(flash: FlashState, now: number): void {
    pair.startedAt = now;
    wakeAt = now;
    let damage = flash.damage;
    if (damage === "" && flash.record !== undefined) {
      const found = decodeRecord(flash.record, 0, flash.record.length);
      if (isMalformed(found)) damage = found.malformed;
      else pair.record = found;
    }
    pair.epochHeard = epochOf(pair.record);
    const counter = nonces.firstCounter(now);
    for (let i = 0; i < 2; i++) {
      const view = pair.servers[i];
      view.counter = counter;
      view.silentFrom = now;
      view.linkDownAt = now;
      if (config.servers[i].serial !== undefined) {
        addLine(view);
        deadlines.set(SERIAL_POLL, now);
      }
    }
    deadlines.set(POLL, now);
    if (pair.record !== undefined) {
      move("recordFound", "the flash holds " + recordText(pair, pair.record), now);
    } else {
      pair.alarm = damage;
      move(
        "nothingFound",
        damage === "" ? "the flash is blank" : "the flash cannot be believed",
        now,
      );
      if (damage !== "") note(LEVEL_ERROR, "ALARM", damage, now);
    }
  }

  function heartbeat(server: ServerIndex, bytes: Uint8Array, now: number): void {
    catchUp();
    const heard = decodeHeartbeat(bytes, 0, bytes.length);
    const view = pair.servers[server];
    if (isMalformed(heard)) {
      note(LEVEL_DEBUG, "bad heartbeat", view.id + ": " + heard.malformed, now);
      return;
    }
    if (pair.record !== undefined) shareNames(heard, pair.record, server);
    const before = view.said;
    const counts = heartbeatHeard(view, heard, now, t.pollMs);
    if (counts === HEARD_NOTHING) return;
    heardSomeone(now);
    judgeEvent(view, now);
    if (counts === HEARD_ALIVE) return;
    if (counts === HEARD_OTHER_LINK) {
      links.drop(server, 0, "the server no longer holds this link", true, now);
      return;
    }
    const foreign = foreignText(heard);
    if (foreign !== "") {
      links.drop(server, REFUSE_PAIR, foreign, false, now);
      return;
    }
    if (counts === HEARD_ALL && !bytesEqual(before!.identity, heard.identity)) {
      links.drop(server, REFUSE_MALFORMED, "another disk on the same connection", false, now);
      return;
    }
    checkRecord(heard, view, now);
    if (counts === HEARD_ALL) {
      setReported(view);
      dirty = true;
    }
  }

  function opened(connection: number, kind: ConnectionKind, now: number): void {
    isServer[connection] = kind === "server";
    if (kind === "server") links.open(connection, now);
    else forwarder.clientOpen(connection, kind, now);
  }

  function received(
    connection: number,
    bytes: Uint8Array,
    from: number,
    to: number,
    now: number,
  ): void {
    if (isServer[connection]) links.bytes(connection, bytes, from, to, now);
    else forwarder.clientBytes(connection, bytes, from, to, now);
  }

  function closed(connection: number, now: number): void {
    if (isServer[connection]) links.closed(connection, now);
    else forwarder.clientClosed(connection, now);
  }

  function drained(connection: number, now: number): void {
    if (!isServer[connection]) forwarder.clientDrained(connection, now);
    else if (forwarding[0] && links.connectionOf(0) === connection) forwarder.linkDrained(0, now);
    else if (forwarding[1] && links.connectionOf(1) === connection) forwarder.linkDrained(1, now);
  }

  function pollRefused(server: ServerIndex, now: number): void {
    catchUp();
    const view = pair.servers[server];
    if (view.linked || view.probeAt < 0) return;
    view.refused = true;
    judgeEvent(view, now);
  }

  function serial(
    server: ServerIndex,
    bytes: Uint8Array,
    from: number,
    to: number,
    now: number,
  ): void {
    // Packets that went past have had their numbers.
    catchUpPolls();
    lines.feed(server, bytes, from, to, now);
  }

  function isOutOfReach(view: ServerView): boolean {
    return view.fault === FAULT_SILENT || view.fault === FAULT_NETWORK;
  }

  /** Both servers are silent at once: their lines tell whether it is our own cable. */
  function judgeOutage(now: number): void {
    if (outage || !isOutOfReach(pair.servers[0]) || !isOutOfReach(pair.servers[1])) return;
    outage = true;
    const byLine =
      pair.servers[0].fault === FAULT_NETWORK || pair.servers[1].fault === FAULT_NETWORK;
    note(
      LEVEL_WARN,
      "both silent",
      byLine
        ? "no role changes: serial answers, so it is this controller's own network"
        : "no role changes: it may be our own cable",
      now,
    );
  }

  function wantsTick(): boolean {
    const stirs = links.stirred() + lineStirs;
    if (stirs === stirsTold) return false;
    stirsTold = stirs;
    return true;
  }

  function ticked(now: number): number {
    catchUpPolls();
    const lateMs = now - wakeAt;
    const late = lateMs > t.pollMs / 2 || readFirst;
    if (lateMs > t.pollMs / 2) {
      if (lateMs > worstLateMs) worstLateMs = lateMs;
      if (!readFirst) {
        // Answers may lie unread: the home hands them in, and then calls again.
        lateTurns++;
        readFirst = true;
        wakeAt = now;
        return now;
      }
    }
    readFirst = false;
    deadlines.set(HANDSHAKE, links.tick(now));
    judgeTurn(pair.servers[0], now, late);
    judgeTurn(pair.servers[1], now, late);
    judgeLineNow(pair.servers[0], now);
    judgeLineNow(pair.servers[1], now);
    judgeOutage(now);
    fencing.tick(now);
    if (deadlines.due(POWER_ON, now)) {
      // Set anew by the rule that still waits, if one does.
      deadlines.clear(POWER_ON);
      dirty = true;
    }
    if (deadlines.due(SETTLE, now) || deadlines.due(ORDER, now)) dirty = true;
    if (deadlines.due(REPEAT, now)) deadlines.clear(REPEAT);
    // Drained commands come to an end without telling anyone.
    if (pair.state === "draining") dirty = true;
    settle(now);
    if (deadlines.due(POLL, now)) {
      deadlines.set(POLL, now + t.pollMs);
      pollServer(pair.servers[0], now);
      pollServer(pair.servers[1], now);
      // With the poll nearest to its time, since a turn of its own costs a chip more than the poll.
      if (WITH_SERIAL_LINES && deadlines.due(SERIAL_POLL, now + t.pollMs / 2)) {
        deadlines.set(SERIAL_POLL, now + t.serialPollMs);
        pollLine(pair.servers[0], now);
        pollLine(pair.servers[1], now);
      }
    }
    // Polls go first: what waits for a server may take a while.
    const forwardAt = forwarder.tick(now);
    settle(now);
    const a = nextJudgement(pair.servers[0], t);
    const b = nextJudgement(pair.servers[1], t);
    deadlines.set(JUDGE, a < b ? a : b);
    const own = deadlines.next();
    assert(own > now, "every deadline that has come is set anew or cleared");
    wakeAt = own < forwardAt ? own : forwardAt;
    return wakeAt;
  }

  // ---- the operator ----

  function switchover(now: number): string {
    const why = whyNoSwitchover(pair);
    if (why !== "") return why;
    if (pair.state === "draining") return "a switchover is under way";
    const record = pair.record!;
    drainBecause =
      "the operator asked for a switchover from " +
      idOf(pair, record.primary) +
      " to " +
      idOf(pair, otherOf(record.primary));
    drainedLate = false;
    deadlines.set(DRAIN, now + t.drainMs);
    move("drain", drainBecause, now);
    return "";
  }

  function force(server: ServerIndex, now: number): Order {
    return orderForce(pair, server, now);
  }

  function newPair(identity: Uint8Array, now: number): string {
    const order = orderNewPair(pair, identity, newPairId(), now);
    if (order.proposal !== undefined) {
      orderedPair = identity;
      ordered(now);
    }
    return order.refused;
  }

  function carryOutForce(confirmed: Confirmed, now: number): void {
    orderedForce = confirmed;
    ordered(now);
  }

  function ordered(now: number): void {
    deadlines.set(ORDER, now + t.failureMs);
    dirty = true;
  }

  /** Carries out an order as soon as its server has answered the latest poll. */
  function stepOrder(now: number): void {
    const confirmed = orderedForce;
    const order =
      confirmed === undefined
        ? orderNewPair(pair, orderedPair!, newPairId(), now)
        : force(confirmed.server, now);
    const proposal = order.proposal;
    let why = order.refused;
    // The pair may have changed while the order waited: more could be lost than the operator agreed to.
    if (proposal !== undefined && confirmed !== undefined) why = whyChanged(pair, order, confirmed);
    if (why === "" && deadlines.due(ORDER, now)) why = "no answer to a poll";
    if (why === "" && !mayCarryOut(pair, proposal!.record.primary, now)) return;
    orderedForce = undefined;
    orderedPair = undefined;
    deadlines.clear(ORDER);
    if (why === "") propose(proposal!, now);
    else note(LEVEL_WARN, "order given up", why, now);
  }

  /** What a server's serial line has brought; null where there is none. */
  function lineStatus(server: ServerIndex): LineStatus | null {
    const counts = lines.counts(server);
    const line = pair.servers[server].line;
    if (counts === undefined || line === undefined) return null;
    return {
      up: line.up,
      strangerId: line.strangerId,
      packets: counts.packets,
      damaged: counts.damaged,
      garbageBytes: counts.garbageBytes,
      lost: counts.lost,
      doubled: counts.doubled,
      echoes: counts.echoes,
      tooLong: counts.tooLong,
      unsent: lines.unsent(server),
    };
  }

  function status(now: number): object {
    catchUp();
    if (!WITH_STATUS_JSON) return {};
    return statusOf(pair, forwarder, session, now, {
      lateTurns: lateTurns,
      worstLateMs: worstLateMs,
      roleChanges: roleChanges,
      lastAlarm: lastAlarm,
      traceCount: trace.count(),
      serial: [lineStatus(0), lineStatus(1)],
      fences: [fencing.text(0, now), fencing.text(1, now)],
    });
  }

  const consoleHost: ConsoleHost = {
    pair: pair,
    announced: undefined,
    trace: trace,
    deadlines: deadlines,
    status: status,
    lineCounts: lines.counts,
    switchover: switchover,
    force: force,
    carryOut: carryOutForce,
    newPair: newPair,
    fencing: fencing,
    setTrace: function (on: boolean): void {
      traceOn = on;
    },
  };

  return guardCore(
    {
      start: start,
      open: opened,
      bytes: received,
      drained: drained,
      closed: closed,
      heartbeat: heartbeat,
      pollRefused: pollRefused,
      serial: serial,
      persisted: persisted,
      mayCompact: mayCompact,
      wantsTick: wantsTick,
      tick: ticked,
      console: function (line, now): string {
        catchUp();
        return answerLine(consoleHost, line, now);
      },
      status: status,
      settle: settle,
      rounds: rounds,
    },
    function (reason: string, now: number): void {
      trace.add(now, LEVEL_ERROR, "reset", reason);
      ports.reset(reason);
    },
  );
}
