/*
 * The role protocol as it is built, for SPIN (Promela). `npm run model` checks it; docs/ROLE-PROTOCOL.md ("The model of what
 * is built") says what that shows and what not. -DBREAK_... breaks a rule on purpose.
 *
 * One controller C, servers 0 and 1. What is durable and what is volatile is as rule 1 says. A step is
 * atomic where the code makes it one durable step or where an earlier or later arrival is the same
 * behaviour; everything else interleaves freely. Told records may arrive at any time, in any order, any
 * number of times, or never. "event NAME" in a comment names the event of firmware/core/role-table.ts that
 * the step carries out.
 *
 * Events left out: drain, drainEnded, forced, overruled, primaryBack, primaryGone, reportLost, rerouted, saidOtherwise.
 * While C does nothing it may be draining, or wait for somebody; to reroute is to switch over; reports that
 * come, go and change are any reports; and what an operator gives up by force no checker here can know.
 *
 * Bounds, all of them -D options: EPOCHS records, WRITES through C and LOCALS at a server's own port, READS, one
 * at a time, CRASHES of each server, BOOTS of C, WIPES of its flash, DISKS replaced or restored, COPIES of ranges.
 */
#ifndef EPOCHS
#define EPOCHS 4
#endif
#ifndef WRITES
#define WRITES 1
#endif
#ifndef LOCALS
#define LOCALS 1
#endif
#ifndef READS
#define READS 1
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef BOOTS
#define BOOTS 1
#endif
#ifndef WIPES
#define WIPES 0
#endif
#ifndef DISKS
#define DISKS 0
#endif
#ifndef COPIES
#define COPIES 0
#endif

#define ALL (WRITES + LOCALS)
#define LOCAL ALL
/* Room for what a broken rule lets in, so that it is a promise that fails and not an array. */
#define LOG (ALL + 1)
#define OTHER(x) (1 - (x))
#define BIT(w) (1 << ((w) - 1))

/* ---- records: all that C ever put into flash, by epoch ---- */
typedef Record { bit prim; bit both; byte disk[2] };
Record rec[EPOCHS + 1];
byte written = 0;            /* highest epoch ever put into flash */

/* ---- C ---- */
byte cE = 0;                 /* epoch of the record in flash; 0: blank */
byte wE = 0;                 /* epoch on its way into flash; 0: none */
bit wBack = 0;               /* the record on its way takes a solo record back (G5) */
bit fresh = 0;               /* no reply of this epoch has passed (G5); volatile */
byte since = 0;              /* the primary of cE has been it without a break since this epoch */
byte boots = 0; byte wipes = 0; byte disks = 0;
byte ids = 2;                /* disk identities given out */

/* ---- servers ---- */
typedef Server {
  /* on disk */
  byte disk; byte k; byte asked; byte top; byte high; bit copying;
  byte w[LOG]; byte e[LOG];  /* the log: which write, appended in which epoch */
  /* in memory */
  byte conf; bit joining; byte joinTo; byte told; bit heard; bit ready;
  byte crashes;
};
Server s[2];
/* The session under way on the peer link: planned by both, cut not yet done. */
bit planned = 0; byte planE = 0; byte keepTo = 0; bit planCopy = 0;
/* A confirm on the wire. */
byte cfE = 0; byte cfN = 0; bit cfTo = 0;
/* X's request for both, or for solo, as C may act on it at any later time (rules 16, 17). */
byte askE = 0; byte askDisk = 0; byte soloE = 0;

/* ---- commands ---- */
typedef Command { byte rq[2]; byte at[2]; byte rp[2]; bit open };
Command c[ALL + 1];          /* rq: asked in that epoch; at: entry it waits for; rp: reply decided in that epoch */
byte lAt = 0; bit lOn = 0; byte lE = 0; byte lSeen = 0; bit lOpen = 0; bit lBegun = 0;
bit rOpen = 0; byte rSeen = 0; bit rTo = 0; byte rE = 0; byte rVal = 0; byte rNeed = 0; bit rTaken = 0; byte rRp = 0;
byte reads = 0;

/* ---- the promises, kept outside ---- */
byte acked = 0; byte seen = 0;   /* writes somebody was told are done; writes somebody has read */

#define K(x) rec[s[x].k]
#ifdef BREAK_identity
#define NAMED(x) (s[x].k != 0)
#else
#define NAMED(x) (s[x].k != 0 && K(x).disk[x] == s[x].disk)
#endif
#define LEADS(x) (s[x].k != 0 && K(x).prim == x && NAMED(x) && !s[x].copying)
#define BOTH(x) (K(x).both)
#ifdef BREAK_asked_forgotten
#define JOINT(x) (BOTH(x) || s[x].joining)
#else
#define JOINT(x) (BOTH(x) || s[x].joining || s[x].asked != 0)
#endif
/* Rule 11 and 12 */
#ifdef BREAK_ack_alone
#define MAYACK(x, n) (1)
#else
#define MAYACK(x, n) (!JOINT(x) || s[x].conf >= (n))
#endif

inline maskOf(x, upTo, m) {
  m = 0; i = 0;
  do :: i < upTo -> m = m | BIT(s[x].w[i]); i++ :: else -> break od; i = 0
}
/* Where a write stands in a log: index from 1, 0 when it does not (the session table). */
inline find(x, wr, at) {
  at = 0; i = 0;
  do :: i < s[x].top -> if :: s[x].w[i] == wr -> at = i + 1 :: else fi; i++ :: else -> break od; i = 0
}
inline append(x, wr) {
  i = 0;                       /* exactly once */
  do :: i < s[x].top -> assert(s[x].w[i] != wr); i++ :: else -> break od; i = 0;
  assert(s[x].top < LOG);
  s[x].w[s[x].top] = wr; s[x].e[s[x].top] = s[x].k; s[x].top++
}
inline cutTo(x, n) {
  do :: s[x].top > n -> s[x].top--; s[x].w[s[x].top] = 0; s[x].e[s[x].top] = 0 :: else -> break od; i = 0
}
/* Pending commands of a server that is no longer primary, or of one that crashed (rule 10, G2). */
inline dropPending(x) {
  i = 1;
  do :: i <= WRITES -> c[i].at[x] = 0; i++ :: else -> break od; i = 0;
  if :: rOpen && rTo == x && rTaken && rRp == 0 -> rTaken = 0; rVal = 0; rNeed = 0; rE = 0 :: else fi
}
inline dropLocal(x) {
  if :: lOpen && lOn == x -> lOpen = 0; lAt = 0; lE = 0; lSeen = 0 :: else fi
}
/* Everything on C's link to a server is gone (rule 6). */
inline dropLink(x) {
  i = 1;
  do :: i <= WRITES -> c[i].rq[x] = 0; c[i].at[x] = 0; c[i].rp[x] = 0; i++ :: else -> break od; i = 0;
  if :: rOpen && rTo == x -> rTaken = 0; rVal = 0; rNeed = 0; rE = 0; rRp = 0; rOpen = 0; rSeen = 0; rTo = 0 :: else fi
}
inline dropSession() {
  s[0].ready = 0; s[1].ready = 0; planned = 0; planE = 0; keepTo = 0; planCopy = 0;
#ifndef BREAK_confirm_epoch
  cfE = 0; cfN = 0; cfTo = 0
#endif
}
/* A client was told that these are done, or read them: whatever was known before must be in it. */
inline observe(before, value) {
  assert((before & value) == before);   /* linearizable */
  seen = seen | value
}
#define newRecord(ep, p, b, d0, d1) \
  x = p; i = d0; y = d1; h = ep; rec[h].prim = x; rec[h].both = b; rec[h].disk[0] = i; rec[h].disk[1] = y; wE = h; h = 0; x = 0; i = 0; y = 0
#define CK rec[cE]
/* C names nobody who has not just answered a poll with K's disk. */
#ifdef BREAK_identity
#define MAYNAME(x) (1)
#else
#define MAYNAME(x) (s[x].disk == CK.disk[x] && !s[x].copying)
#endif
#ifdef BREAK_g3
#define CLOSE(x) skip
#else
#define CLOSE(x) dropLink(x)
#endif
#define IDLE (cE != 0 && wE == 0 && written < EPOCHS)

proctype Controller() {
  byte i = 0; byte x = 0; byte h = 0; byte y = 0;
  end: do
  /* A new pair (event newPair, event announced, event firstOnline, event operatorPair): chosen in init. */

  /* rule 15: record both */
  :: d_step { IDLE && CK.both && MAYNAME(OTHER(CK.prim)) ->   /* event failover */
       newRecord(written + 1, OTHER(CK.prim), 0, CK.disk[0], CK.disk[1]) }
  :: d_step { IDLE && CK.both && MAYNAME(CK.prim) ->          /* event standbyLost, event standbyStalled */
       newRecord(written + 1, CK.prim, 0, CK.disk[0], CK.disk[1]) }
  :: d_step { IDLE && CK.both && MAYNAME(OTHER(CK.prim)) ->   /* event switchover, event announced */
       newRecord(written + 1, OTHER(CK.prim), 1, CK.disk[0], CK.disk[1]) }
  /* rule 16, 17: record solo moves on the primary's own request of exactly this epoch */
  :: d_step { IDLE && !CK.both && askE == cE && MAYNAME(CK.prim) ->   /* event askedBoth */
       if :: CK.prim == 0 -> newRecord(written + 1, 0, 1, CK.disk[0], askDisk)
          :: else -> newRecord(written + 1, 1, 1, askDisk, CK.disk[1]) fi }
  :: d_step { IDLE && !CK.both && soloE == cE && MAYNAME(CK.prim) ->  /* event askedSolo */
       newRecord(written + 1, CK.prim, 0, CK.disk[0], CK.disk[1]) }
#ifdef BREAK_promote_over_solo
  :: d_step { IDLE && !CK.both && MAYNAME(OTHER(CK.prim)) ->
       newRecord(written + 1, OTHER(CK.prim), 0, CK.disk[0], CK.disk[1]) }
#endif
  /* G5: nothing of this epoch has passed; the old primary's link is closed first */
  :: d_step { IDLE && !CK.both && fresh && MAYNAME(OTHER(CK.prim)) ->  /* event takenBack */
       wBack = 1; x = CK.prim; CLOSE(x); x = 0;
       newRecord(written + 1, OTHER(CK.prim), 0, CK.disk[0], CK.disk[1]) }

  /* rule 2: in flash, and then told (event persistedBoth, event persistedSolo) */
  :: d_step { wE != 0 ->
       h = since;
       if :: cE != 0 && CK.prim == rec[wE].prim -> skip :: else -> since = wE fi;
#ifdef BREAK_g3
       since = 1;
#endif
       /* The right to take back is given where the record both(.) or its own take-back came before. */
       fresh = (!rec[wE].both && cE != 0 && (CK.both || wBack));
       cE = wE; if :: cE > written -> written = cE :: else fi; wE = 0; wBack = 0; h = 0;
       askE = 0; askDisk = 0; soloE = 0;
       /* reads at a server that lost its part are asked again by their clients */
       if :: rOpen && rRp == 0 && rTo != CK.prim -> rOpen = 0; rSeen = 0; rTo = 0; rE = 0; rTaken = 0; rVal = 0; rNeed = 0 :: else fi }

  /* G1: forwards by the flash record only, in its epoch; a write is asked again under its number */
  :: d_step { cE != 0 && wE == 0 && WRITES >= 1 && c[1].open && c[1].rq[CK.prim] < since ->
       c[1].rq[CK.prim] = cE; c[1].at[CK.prim] = 0; c[1].rp[CK.prim] = 0 }
#if WRITES > 1
  :: d_step { cE != 0 && wE == 0 && c[2].open && c[2].rq[CK.prim] < since ->
       c[2].rq[CK.prim] = cE; c[2].at[CK.prim] = 0; c[2].rp[CK.prim] = 0 }
#endif
  :: d_step { cE != 0 && wE == 0 && !rOpen && reads < READS -> rOpen = 1; reads++; rTo = CK.prim; rE = cE; rSeen = acked | seen }
  :: d_step { cE != 0 && wE == 0 && !rOpen && reads < READS && CK.both -> rOpen = 1; reads++; rTo = OTHER(CK.prim); rE = cE; rSeen = acked | seen }

  /* G3: a reply passes by connection, open id and epoch */
#define PASSES(srv, ep) (cE != 0 && ((ep) == cE || (srv == CK.prim && (ep) >= since)) && !(wE != 0 && fresh))
#ifdef BREAK_g3
#define GUARD3(srv, ep) (cE != 0)
#else
#define GUARD3(srv, ep) PASSES(srv, ep)
#endif
#define PASSWRITE(wr, srv) \
  :: d_step { c[wr].open && c[wr].rp[srv] != 0 && GUARD3(srv, c[wr].rp[srv]) -> \
       acked = acked | BIT(wr); c[wr].open = 0; fresh = 0; \
       c[wr].rq[0] = 0; c[wr].rq[1] = 0; c[wr].at[0] = 0; c[wr].at[1] = 0; c[wr].rp[0] = 0; c[wr].rp[1] = 0 }
  PASSWRITE(1, 0)
  PASSWRITE(1, 1)
#if WRITES > 1
  PASSWRITE(2, 0)
  PASSWRITE(2, 1)
#endif
  :: d_step { rOpen && rRp != 0 ->
       if :: GUARD3(rTo, rRp) -> observe(rSeen, rVal); fresh = 0 :: else fi;
       rOpen = 0; rSeen = 0; rTo = 0; rE = 0; rVal = 0; rNeed = 0; rTaken = 0; rRp = 0 }

  /* G5: the flag is set, and only then the server is told so (rule 10) */
  :: d_step { cE != 0 && wE == 0 && !fresh && s[CK.prim].k == cE && s[CK.prim].told != cE -> s[CK.prim].told = cE }
#ifdef BREAK_told_early
  :: d_step { cE != 0 && s[CK.prim].k == cE && s[CK.prim].told != cE -> s[CK.prim].told = cE }
#endif

  /* C boots (event recordFound, event keptBoth, event keptSolo): a cut flash write is there or is not */
  :: d_step { boots < BOOTS && wE != 0 -> boots++;
       cE = wE; if :: cE > written -> written = cE :: else fi; wE = 0; wBack = 0; fresh = 0; since = cE; askE = 0; askDisk = 0; soloE = 0;
       dropLink(0); dropLink(1); c[1].open = 0; c[WRITES].open = 0 }
  :: d_step { boots < BOOTS && cE != 0 -> boots++;
       wE = 0; wBack = 0; fresh = 0; since = cE; askE = 0; askDisk = 0; soloE = 0;
       dropLink(0); dropLink(1); c[1].open = 0; c[WRITES].open = 0 }
#ifdef BREAK_boot_is_fresh
  :: d_step { boots < BOOTS && cE != 0 && !CK.both -> boots++;
       wE = 0; wBack = 0; fresh = 1; since = cE; askE = 0; askDisk = 0; soloE = 0;
       dropLink(0); dropLink(1); c[1].open = 0; c[WRITES].open = 0 }
#endif
#if WIPES > 0
  /* event alarm, event persistedStopped, event nothingFound: the flash is blank */
  :: d_step { wipes < WIPES && cE != 0 -> wipes++;
       cE = 0; wE = 0; wBack = 0; fresh = 0; since = 0; askE = 0; askDisk = 0; soloE = 0;
       dropLink(0); dropLink(1); c[1].open = 0; c[WRITES].open = 0 }
  /* rule 19 (event bothReported, event adopted): both have reported, twice the same; far above all there was */
  /* The gap of epochs is not in here: a model with one record for each epoch cannot have two of one number. */
#define ABOVE (written + 1)
  :: d_step { cE == 0 && wE == 0 && wipes > 0 && written < EPOCHS && (s[0].k != 0 || s[1].k != 0) ->
       h = (s[0].k > s[1].k -> s[0].k : s[1].k);
       if
       :: rec[h].both && s[0].disk == rec[h].disk[0] && s[1].disk == rec[h].disk[1] && !s[rec[h].prim].copying ->
            newRecord(ABOVE, rec[h].prim, 1, rec[h].disk[0], rec[h].disk[1])
       :: !rec[h].both && s[rec[h].prim].disk == rec[h].disk[rec[h].prim] && !s[rec[h].prim].copying ->
            newRecord(ABOVE, rec[h].prim, 0, rec[h].disk[0], rec[h].disk[1])
       :: rec[h].both && s[rec[h].prim].disk == rec[h].disk[rec[h].prim] && s[OTHER(rec[h].prim)].disk != rec[h].disk[OTHER(rec[h].prim)] ->
            newRecord(ABOVE, rec[h].prim, 0, rec[h].disk[0], rec[h].disk[1])
       :: rec[h].both && s[rec[h].prim].disk != rec[h].disk[rec[h].prim] && s[OTHER(rec[h].prim)].disk == rec[h].disk[OTHER(rec[h].prim)] && !s[OTHER(rec[h].prim)].copying ->
            newRecord(ABOVE, OTHER(rec[h].prim), 0, rec[h].disk[0], rec[h].disk[1])
       :: else -> skip
       fi; h = 0 }
#endif
  od
}

#ifdef BREAK_dirty_forgotten
#define READY13 (1)
#else
#define READY13 (!JOINT(me) || (s[me].conf >= rNeed && (s[me].heard || rNeed == 0)))
#endif
#ifdef BREAK_read_before_session
#define STANDBYREADY (!s[me].copying)
#else
#define STANDBYREADY (s[me].ready && !s[me].copying)
#endif
#ifdef BREAK_identity
#define SAMEDISK (1)
#else
#define SAMEDISK (K(me).disk[me] == s[me].disk)
#endif
#ifdef BREAK_confirmed_kept
#define KEPT 0
#else
#define KEPT s[OTHER(me)].conf
#endif
#ifdef BREAK_restored_same
#define NEWID s[me].disk
#else
#define NEWID ids
#endif
#ifdef BREAK_asked_forgotten
#define RESTART s[me].asked = 0;
#else
#define RESTART
#endif
proctype Machine(byte me) {
  byte i = 0; byte at = 0; byte m = 0; byte j = 0;
  end: do
  /* rules 3, 4: any record that was ever told, if its epoch is higher; one durable step */
#define ADOPT(ep) \
  :: d_step { ep <= written && ep > s[me].k && (ep <= cE || cE == 0) -> \
       j = LEADS(me); s[me].k = ep; s[me].asked = 0; \
       s[me].conf = (BREAKCONF); s[me].joining = 0; s[me].joinTo = 0; s[me].heard = 0; s[me].ready = 0; \
       if :: LEADS(me) && j -> skip :: else -> dropPending(me) fi; \
       dropLocal(me); j = 0 }
#ifdef BREAK_confirmed_kept
#define BREAKCONF s[me].conf
#else
#define BREAKCONF 0
#endif
  ADOPT(1)
#if EPOCHS > 1
  ADOPT(2)
#endif
#if EPOCHS > 2
  ADOPT(3)
#endif
#if EPOCHS > 3
  ADOPT(4)
#endif
#if EPOCHS > 4
  ADOPT(5)
#endif
#if EPOCHS > 5
  ADOPT(6)
#endif

  /* G2, exactly once: a write in exactly our epoch, as primary; done once, by its number */
#ifdef BREAK_g2
#define FITS(ep) (1)
#else
#define FITS(ep) ((ep) == s[me].k)
#endif
#define RUN(wr) \
  :: d_step { LEADS(me) && c[wr].rq[me] != 0 && c[wr].at[me] == 0 && c[wr].rp[me] == 0 && FITS(c[wr].rq[me]) -> \
       find(me, wr, at); RETRY \
       if :: at == 0 -> append(me, wr); at = s[me].top :: else fi; \
       c[wr].at[me] = at; at = 0 }
#ifdef BREAK_retry_runs_again
#define RETRY at = 0;
#else
#define RETRY
#endif
  RUN(1)
#if WRITES > 1
  RUN(2)
#endif
  /* rules 11, 12: the reply goes when it may; its epoch is that of this moment */
#define ANSWER(wr) \
  :: d_step { LEADS(me) && c[wr].at[me] != 0 && c[wr].rp[me] == 0 && MAYACK(me, c[wr].at[me]) -> \
       if :: s[me].conf > s[me].high -> s[me].high = s[me].conf :: else fi; \
       c[wr].rp[me] = s[me].k; c[wr].at[me] = 0 }
  ANSWER(1)
#if WRITES > 1
  ANSWER(2)
#endif
  /* rules 13, 14: reads; every write is to the one key */
  :: d_step { LEADS(me) && rOpen && rTo == me && !rTaken && FITS(rE) ->
       maskOf(me, s[me].top, m); rVal = m; rNeed = s[me].top; rTaken = 1; m = 0 }
  :: d_step { LEADS(me) && rOpen && rTo == me && rTaken && rRp == 0 && READY13 -> rRp = s[me].k }
  :: d_step { s[me].k != 0 && BOTH(me) && K(me).prim != me && NAMED(me) && STANDBYREADY && rOpen && rTo == me && !rTaken && FITS(rE) ->
       maskOf(me, s[me].top, m); rVal = m; rTaken = 1; rRp = s[me].k; m = 0 }

  /* rule 8: the session. Both in one epoch; the plan is made against what both have on disk */
  :: d_step { LEADS(OTHER(me)) && s[me].k == s[OTHER(me)].k && K(me).prim != me && !s[me].ready &&
       K(me).disk[OTHER(me)] == s[OTHER(me)].disk &&
       (!BOTH(me) || SAMEDISK) && (s[OTHER(me)].asked == 0 || s[OTHER(me)].asked == s[me].disk) && !planned &&
       (!s[me].copying || !JOINT(OTHER(me))) ->
       dropSession();
       i = 0;
       do :: i < s[me].top && i < s[OTHER(me)].top && s[me].w[i] == s[OTHER(me)].w[i] && s[me].e[i] == s[OTHER(me)].e[i] -> i++
          :: else -> break od;
       keepTo = i; i = 0; planned = 1; planE = s[me].k; planCopy = s[me].copying;
       /* What its disk lacks of what it once confirmed is not built on; in mode both it must join anew. */
       if :: keepTo < KEPT -> s[OTHER(me)].conf = 0; s[OTHER(me)].joining = 0 :: else fi;
       if :: JOINT(OTHER(me)) && keepTo < s[OTHER(me)].high && keepTo < s[OTHER(me)].top -> dropSession() :: else fi }
#if COPIES > 0
  /* The primary's log does not reach back: a range copy, in solo only; the tables are cleared first. */
  :: d_step { planned && planE == s[me].k && K(me).prim != me && !planCopy && LEADS(OTHER(me)) && !JOINT(OTHER(me)) && s[OTHER(me)].k == planE ->
       planCopy = 1; s[me].copying = 1; cutTo(me, 0); s[me].high = 0; s[OTHER(me)].conf = 0 }
  :: d_step { planned && planCopy && planE == s[me].k && K(me).prim != me && LEADS(OTHER(me)) && s[OTHER(me)].k == planE && s[me].copying ->
       cutTo(me, 0); i = 0;
       do :: i < s[OTHER(me)].top -> s[me].w[i] = s[OTHER(me)].w[i]; s[me].e[i] = s[OTHER(me)].e[i]; i++ :: else -> break od;
       s[me].top = i; keepTo = i; i = 0; s[me].copying = 0; planCopy = 0 }
#endif
#ifdef BREAK_restored_same
/* It refuses then, and says so: no promise is broken by that. */
#define MAYCUT (s[me].high <= keepTo || s[me].top <= keepTo)
#else
#define MAYCUT (1)
#endif
#ifdef BREAK_append_before_cut
#define CUT skip
#else
#define CUT assert(s[me].high <= keepTo || s[me].top <= keepTo); cutTo(me, keepTo)
#endif
  :: d_step { planned && !planCopy && planE == s[me].k && K(me).prim != me && !s[me].copying && MAYCUT ->
       CUT; planned = 0; planE = 0; keepTo = 0;
       s[me].ready = 1; if :: s[OTHER(me)].k == s[me].k -> s[OTHER(me)].ready = 1 :: else fi }
  /* rules 5, 7: the standby takes the next entry of a session of its epoch */
  :: d_step { s[me].ready && K(me).prim != me && LEADS(OTHER(me)) && s[OTHER(me)].ready && s[OTHER(me)].k == s[me].k && s[me].top < s[OTHER(me)].top ->
       s[me].w[s[me].top] = s[OTHER(me)].w[s[me].top]; s[me].e[s[me].top] = s[OTHER(me)].e[s[me].top]; s[me].top++ }
  /* rule 9: confirm, on the wire; kept durably before it goes */
  :: d_step { s[me].ready && K(me).prim != me && !s[me].copying && cfE == 0 &&
       (s[OTHER(me)].conf < s[me].top || !s[OTHER(me)].heard) ->
       if :: s[me].top > s[me].high -> s[me].high = s[me].top :: else fi;
       cfE = s[me].k; cfN = s[me].top; cfTo = OTHER(me) }
#ifdef BREAK_confirm_epoch
#define CFFITS (1)
#else
#define CFFITS (cfE == s[me].k && s[me].ready)
#endif
  :: d_step { cfE != 0 && cfTo == me ->
       if :: LEADS(me) && CFFITS ->
            s[me].heard = 1; if :: cfN > s[me].conf && cfN <= s[me].top -> s[me].conf = cfN :: else fi
          :: else fi;
       cfE = 0; cfN = 0; cfTo = 0 }

  /* rule 17: joining, asked, the requests */
  :: d_step { LEADS(me) && !BOTH(me) && s[me].ready && !s[me].joining && s[me].asked == 0 -> s[me].joining = 1; s[me].joinTo = s[me].top }
  :: d_step { LEADS(me) && s[me].joining && s[me].asked == 0 -> s[me].joining = 0; s[me].joinTo = 0 }
  :: d_step { LEADS(me) && s[me].joining && s[me].asked == 0 && s[me].ready && s[me].heard && s[me].conf >= s[me].joinTo && s[OTHER(me)].k == s[me].k ->
       s[me].asked = s[OTHER(me)].disk }
#ifdef BREAK_ask_without_joining
  :: d_step { LEADS(me) && !BOTH(me) && s[me].ready && s[me].asked == 0 && cE == s[me].k && askE == 0 -> askE = cE; askDisk = s[OTHER(me)].disk }
#endif
  :: d_step { LEADS(me) && !BOTH(me) && s[me].asked != 0 && cE == s[me].k && askE == 0 -> askE = cE; askDisk = s[me].asked }
  :: d_step { LEADS(me) && !BOTH(me) && s[me].asked != 0 && cE == s[me].k && soloE == 0 && !s[me].ready -> soloE = cE }

  /* rule 10: a write at a server's own port, ordered by the primary; also what a local read is */
  :: d_step { !lBegun && s[me].k != 0 && (LEADS(me) || (BOTH(me) && NAMED(me) && K(me).prim != me && s[me].ready)) && LOCALS > 0 ->
       lBegun = 1; lOpen = 1; lOn = me; lE = s[me].k; lSeen = acked | seen }
  :: d_step { lOpen && lAt == 0 && LEADS(me) && s[me].k == lE && (lOn == me || (s[me].ready && s[OTHER(me)].ready)) ->
       append(me, LOCAL); lAt = s[me].top }
#ifdef BREAK_told_ignored
#define LOCALACK(x) (1)
#else
#define LOCALACK(x) (BOTH(x) || s[x].told == s[x].k)
#endif
  :: d_step { lOpen && lAt != 0 && lOn == me && LEADS(me) && s[me].k == lE && MAYACK(me, lAt) && LOCALACK(me) ->
       if :: s[me].conf > s[me].high -> s[me].high = s[me].conf :: else fi;
       maskOf(me, lAt, m); observe(lSeen, m); acked = acked | BIT(LOCAL); m = 0; lOpen = 0; lAt = 0; lE = 0; lSeen = 0 }
  :: d_step { lOpen && lAt != 0 && lOn == me && !LEADS(me) && s[me].k == lE && s[me].ready && s[me].top >= lAt ->
       maskOf(me, lAt, m); observe(lSeen, m); acked = acked | BIT(LOCAL); m = 0; lOpen = 0; lAt = 0; lE = 0; lSeen = 0 }

  /* A crash and its restart: what is on disk stays. (While it is down a server does nothing, which it may do
     at any time.) */
#define LOST \
       s[me].conf = 0; s[me].joining = 0; s[me].joinTo = 0; s[me].told = 0; s[me].heard = 0; \
       dropLink(me); dropLocal(me); dropSession();
  :: d_step { s[me].crashes < CRASHES -> s[me].crashes++; RESTART
       LOST }
  /* Identities: an emptied disk, or one restored from a backup, which is behind by an entry */
  :: d_step { disks < DISKS -> disks++; ids++; s[me].disk = NEWID;
       s[me].k = 0; s[me].asked = 0; s[me].high = 0; s[me].copying = 0; cutTo(me, 0);
       LOST }
  :: d_step { disks < DISKS && s[me].top > 0 -> disks++; ids++; s[me].disk = NEWID;
       s[me].asked = 0; s[me].high = 0; j = s[me].top - 1; cutTo(me, j); j = 0;
       LOST }
  od
}

/* What must hold between any two steps. */
proctype Watch() {
  byte i = 0; byte m = 0; byte x = 0;
  end: do
  /* no-lost-write: who may answer as C's primary, in C's epoch, holds all that anybody was told is done */
  :: d_step { cE != 0 && wE == 0 && LEADS(CK.prim) && s[CK.prim].k == cE ->
       x = CK.prim; maskOf(x, s[x].top, m); assert((acked & m) == acked); m = 0; x = 0 }
  od
}

init {
  byte i = 0;
  d_step { s[0].disk = 1; s[1].disk = 2;
    rec[1].prim = 0; rec[1].disk[0] = 1; rec[1].disk[1] = 2; cE = 1; written = 1; since = 1; c[1].open = 1; c[WRITES].open = 1 }
  if :: rec[1].both = 1 :: rec[1].both = 0; fresh = 0 fi;
  atomic { run Controller(); run Machine(0); run Machine(1); run Watch() }
}
