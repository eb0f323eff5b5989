/** When keys end. */
import { writeInteger } from "../../protocol/resp.js";
import { EXPIRE_MAX, NOT_INTEGER } from "./context.js";
import type { CommandRun, Context } from "./context.js";
import { INT64_MAX, INT64_MIN } from "./numbers.js";
import { KIND_NONE } from "./rows.js";

/** The condition asked for; -1 when it was written wrongly (then `problem` says how). */
const condition = { nx: false, xx: false, gt: false, lt: false };

function parseCondition(c: Context): string | undefined {
  condition.nx = condition.xx = condition.gt = condition.lt = false;
  for (let i = 3; i < c.count; i++) {
    if (c.is(i, "nx")) condition.nx = true;
    else if (c.is(i, "xx")) condition.xx = true;
    else if (c.is(i, "gt")) condition.gt = true;
    else if (c.is(i, "lt")) condition.lt = true;
    else return `ERR Unsupported option ${c.shown(i)}`;
  }
  if (condition.nx && (condition.xx || condition.gt || condition.lt)) {
    return "ERR NX and XX, GT or LT options at the same time are not compatible";
  }
  if (condition.gt && condition.lt) {
    return "ERR GT and LT options at the same time are not compatible";
  }
  return undefined;
}

function expire(c: Context, base: number, seconds: boolean): string | undefined {
  const problem = parseCondition(c);
  if (problem !== undefined) return problem;
  const given = c.integer(2);
  if (given === undefined) return NOT_INTEGER;
  const invalid = `ERR invalid expire time in '${c.name}' command`;
  let exact = BigInt(given);
  if (seconds) {
    if (exact > INT64_MAX / 1000n || exact < INT64_MIN / 1000n) return invalid;
    exact *= 1000n;
  }
  if (exact > INT64_MAX - BigInt(base)) return invalid;
  exact += BigInt(base);
  const key = c.text(1);
  const state = c.read(key);
  if (state.kind === KIND_NONE) {
    writeInteger(c.reply, 0);
    return undefined;
  }
  const when = exact > BigInt(EXPIRE_MAX) ? EXPIRE_MAX : Number(exact);
  const now = state.expireAt;
  if (
    (condition.nx && now > 0) ||
    (condition.xx && now === 0) ||
    (condition.gt && (now === 0 || when <= now)) ||
    (condition.lt && now > 0 && when >= now)
  ) {
    writeInteger(c.reply, 0);
    return undefined;
  }
  if (when <= c.now) c.del(key, state);
  else c.expire(key, state, when);
  writeInteger(c.reply, 1);
  return undefined;
}

/** @param absolute the time itself, not what is left of it */
function left(c: Context, seconds: boolean, absolute: boolean): string | undefined {
  const state = c.read(c.text(1));
  let answer = -2;
  if (state.kind !== KIND_NONE) {
    answer = -1;
    if (state.expireAt > 0) {
      answer = absolute ? state.expireAt : Math.max(0, state.expireAt - c.now);
      if (seconds) answer = Math.floor((answer + 500) / 1000);
    }
  }
  writeInteger(c.reply, answer);
  return undefined;
}

const persist: CommandRun = (c) => {
  const key = c.text(1);
  const state = c.read(key);
  const has = state.kind !== KIND_NONE && state.expireAt > 0;
  if (has) c.expire(key, state, 0);
  writeInteger(c.reply, has ? 1 : 0);
  return undefined;
};

export const EXPIRY_COMMANDS: Record<string, CommandRun> = {
  expire: (c) => expire(c, c.now, true),
  pexpire: (c) => expire(c, c.now, false),
  expireat: (c) => expire(c, 0, true),
  pexpireat: (c) => expire(c, 0, false),
  ttl: (c) => left(c, true, false),
  pttl: (c) => left(c, false, false),
  expiretime: (c) => left(c, true, true),
  pexpiretime: (c) => left(c, false, true),
  persist,
};
