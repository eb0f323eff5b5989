/** Patterns of KEYS and SCAN, as Redis matches them (stringmatchlen), with a bound on the work. */

/** Steps one match may take; a pattern made to be slow matches nothing beyond it. */
const STEPS_MAX = 10000;

let steps = 0;

/** Both are latin1 text. */
export function globMatch(pattern: string, text: string): boolean {
  // Redis does not even look at the text then (it would not match an empty one).
  steps = 0;
  if (matchesAll(pattern)) return true;
  return match(pattern, 0, text, 0);
}

/** Steps the last match took. */
export function globSteps(): number {
  return steps;
}

/** @returns whether the pattern matches everything */
export function matchesAll(pattern: string): boolean {
  return pattern === "*";
}

function match(pattern: string, patternAt: number, text: string, textAt: number): boolean {
  let p = patternAt;
  let t = textAt;
  while (p < pattern.length && t < text.length) {
    if (++steps > STEPS_MAX) return false;
    switch (pattern[p]) {
      case "*":
        while (p + 1 < pattern.length && pattern[p + 1] === "*") p++;
        if (p + 1 === pattern.length) return true;
        for (; t < text.length; t++) {
          if (match(pattern, p + 1, text, t)) return true;
          if (steps > STEPS_MAX) return false;
        }
        return false;
      case "?":
        t++;
        break;
      case "[": {
        p++;
        const not = pattern[p] === "^";
        if (not) p++;
        let found = false;
        for (;;) {
          if (p < pattern.length - 1 && pattern[p] === "\\") {
            p++;
            if (pattern[p] === text[t]) found = true;
          } else if (pattern[p] === "]") {
            break;
          } else if (p >= pattern.length) {
            p--;
            break;
          } else if (p + 2 < pattern.length && pattern[p + 1] === "-") {
            let from = pattern.charCodeAt(p);
            let to = pattern.charCodeAt(p + 2);
            if (from > to) [from, to] = [to, from];
            p += 2;
            const code = text.charCodeAt(t);
            if (code >= from && code <= to) found = true;
          } else if (pattern[p] === text[t]) {
            found = true;
          }
          p++;
        }
        if (found === not) return false;
        t++;
        break;
      }
      case "\\":
        if (p + 1 < pattern.length) p++;
        if (pattern[p] !== text[t]) return false;
        t++;
        break;
      default:
        if (pattern[p] !== text[t]) return false;
        t++;
    }
    p++;
    if (t >= text.length) {
      while (pattern[p] === "*") p++;
      break;
    }
  }
  return p >= pattern.length && t >= text.length;
}
