/**
 * A run as a picture: one lane a machine, its role as the lane's colour, messages as arrows, faults and the violation
 * marked. Time runs down. What happened last is what one wants to see, so the picture shows the end of the run.
 */
import type { Mark } from "./world/picture.js";
import type { RunResult } from "./run.js";

const LANES = ["clients", "controller", "a", "b"] as const;
const LANE_X = [170, 420, 670, 920];
const WIDTH = 1090;
const TOP = 96;
const LANE_WIDTH = 14;
/** Marks shown, from the end. */
const MARKS_MAX = 220;
const MESSAGE_ROW = 9;
/** So much after the violation is shown. @unit ms */
const AFTER_MS = 2;

const COLOURS: Record<string, string> = {
  // servers
  primary: "#2e7d32",
  solo: "#e08e0b",
  standby: "#3b78c3",
  joiner: "#8fb7e3",
  stranger: "#8d6e63",
  blank: "#d0d0d0",
  stopped: "#000000",
  // controller
  both: "#2e7d32",
  draining: "#9ccc65",
  waiting: "#f4d35e",
  asking: "#f4d35e",
  dark: "#6a4c93",
  stranded: "#6a4c93",
  writing: "#c9a0dc",
  off: "#eeeeee",
  // any
  gone: "#ffffff",
  hung: "#b0b0b0",
  up: "#90a4ae",
};
const LEGEND = [
  "primary",
  "solo",
  "standby",
  "joiner",
  "blank",
  "waiting",
  "dark",
  "writing",
  "hung",
  "gone",
];

function escape(text: string): string {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function cut(text: string, max: number): string {
  return text.length > max ? `${text.slice(0, max - 1)}…` : text;
}

function laneOf(who: string): number {
  return LANES.indexOf(who as (typeof LANES)[number]);
}

/** Places marks from top to bottom: by their order, with a gap where nothing happened for long. */
class Page {
  readonly y: number[] = [];
  readonly height: number;

  constructor(marks: readonly Mark[]) {
    let at = TOP + 20;
    let before = marks.length > 0 ? marks[0]!.atMs : 0;
    for (const mark of marks) {
      const passed = mark.atMs - before;
      // Rows of one moment lie close together; a long quiet is drawn as a gap, not to scale.
      at += passed <= 0 ? MESSAGE_ROW : Math.min(46, MESSAGE_ROW + 6 * Math.log2(1 + passed * 4));
      if (mark.kind !== "message") at += 3;
      this.y.push(at);
      before = mark.atMs;
    }
    this.height = at + 60;
  }

  /** Where a time between two marks lies. */
  yOf(marks: readonly Mark[], atMs: number): number {
    let low = 0;
    let high = marks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (marks[middle]!.atMs < atMs) low = middle + 1;
      else high = middle;
    }
    if (low >= marks.length) return this.height - 30;
    if (low === 0) return this.y[0]!;
    const [from, to] = [marks[low - 1]!, marks[low]!];
    const share = to.atMs > from.atMs ? (atMs - from.atMs) / (to.atMs - from.atMs) : 1;
    return this.y[low - 1]! + share * (this.y[low]! - this.y[low - 1]!);
  }
}

function lanes(all: readonly Mark[], shown: readonly Mark[], page: Page): string {
  const begin = shown[0]?.atMs ?? 0;
  let out = "";
  for (const [lane, name] of LANES.entries()) {
    const states = all.filter((mark) => mark.kind === "state" && mark.who === name);
    const before = states.filter((mark) => mark.atMs <= begin).pop();
    let state = before?.text ?? (name === "clients" ? "up" : "gone");
    let y = TOP;
    const piece = (to: number): void => {
      const colour = COLOURS[state] ?? "#90a4ae";
      const dashed = state === "gone" ? ' stroke="#999" stroke-dasharray="3 3"' : "";
      out += `<rect x="${LANE_X[lane]! - LANE_WIDTH / 2}" y="${y.toFixed(1)}" width="${LANE_WIDTH}" height="${Math.max(1, to - y).toFixed(1)}" fill="${colour}"${dashed}><title>${escape(name)}: ${escape(state)}</title></rect>\n`;
    };
    for (const mark of states) {
      if (mark.atMs <= begin) continue;
      const to = page.yOf(shown, mark.atMs);
      if (to > y + 0.5) piece(to);
      y = Math.max(y, to);
      state = mark.text;
    }
    piece(page.height - 20);
    out += `<text x="${LANE_X[lane]}" y="${TOP - 12}" text-anchor="middle" class="lane">${name}</text>\n`;
  }
  return out;
}

function arrow(mark: Mark, y: number, page: Page, shown: readonly Mark[]): string {
  const from = laneOf(mark.who);
  const to = laneOf(mark.to);
  const side = to > from ? 1 : -1;
  const x1 = LANE_X[from]! + side * (LANE_WIDTH / 2);
  const x2 = LANE_X[to]! - side * (LANE_WIDTH / 2 + 2);
  const y2 = Math.min(Math.max(y + 2, page.yOf(shown, mark.arrivesMs)), y + 60);
  // Near its sender, so that what crosses a lane does not write over it.
  const middle = x1 + side * 118;
  return (
    `<line x1="${x1}" y1="${y.toFixed(1)}" x2="${x2}" y2="${y2.toFixed(1)}" class="m" marker-end="url(#tip)"/>` +
    `<text x="${middle}" y="${(y - 1).toFixed(1)}" text-anchor="middle" class="w">${escape(cut(mark.text, 46))}</text>\n`
  );
}

function note(mark: Mark, y: number): string {
  const lane = Math.max(0, laneOf(mark.who));
  const x = LANE_X[lane]! + LANE_WIDTH / 2 + 4;
  const css = mark.kind === "fault" ? "f" : "n";
  const text = cut(mark.text, mark.kind === "fault" ? 90 : 42);
  return `<text x="${x}" y="${y.toFixed(1)}" class="${css}">${escape(text)}</text>\n`;
}

function violation(mark: Mark, y: number): string {
  return (
    `<line x1="60" x2="${WIDTH - 20}" y1="${y.toFixed(1)}" y2="${y.toFixed(1)}" stroke="#c62828" stroke-width="2"/>` +
    `<text x="64" y="${(y - 4).toFixed(1)}" class="v">${escape(cut(mark.text, 150))}</text>\n`
  );
}

/** When the last of the operations that a checker names had ended: histories are judged only after the run. */
function focusOf(result: RunResult): number {
  const { violation } = result;
  if (violation === undefined) return Infinity;
  const times = [...violation.what.matchAll(/\[(\d+\.\d+)\.\.(\d+\.\d+|\?)\]/g)].flatMap((found) =>
    [found[1]!, found[2]!].filter((text) => text !== "?").map(Number),
  );
  return times.length > 0 ? Math.max(...times) : violation.atMs;
}

/** The marks up to the violation, which is put where it happened. */
function marksToShow(result: RunResult): Mark[] {
  const focus = focusOf(result);
  const marks = result.marks.filter(
    (mark) => mark.kind !== "violation" && mark.atMs <= focus + AFTER_MS,
  );
  if (result.violation !== undefined) {
    const { promise, what } = result.violation;
    const at = marks.findIndex((mark) => mark.atMs > focus);
    marks.splice(at < 0 ? marks.length : at, 0, {
      atMs: focus,
      kind: "violation",
      who: "",
      to: "",
      arrivesMs: focus,
      text: `${promise}: ${what.split("\n")[0]!}`,
    });
  }
  return marks;
}

/** @param result of a run that kept its marks (RunOptions.readable) */
export function drawTimeline(result: RunResult): string {
  const all = marksToShow(result);
  const shown = all.filter((mark) => mark.kind !== "state").slice(-MARKS_MAX);
  const page = new Page(shown);
  let body = lanes(all, shown, page);
  let lastY = -100;
  for (const [i, mark] of shown.entries()) {
    const y = page.y[i]!;
    if (y - lastY >= 11) {
      body += `<text x="6" y="${y.toFixed(1)}" class="t">${mark.atMs.toFixed(2)}</text>\n`;
      lastY = y;
    }
    if (mark.kind === "message") body += arrow(mark, y, page, shown);
    else if (mark.kind === "violation") body += violation(mark, y);
    else body += note(mark, y);
  }
  const promise =
    result.violation === undefined ? "no promise broken" : `broken: ${result.violation.promise}`;
  const skipped = all.filter((mark) => mark.kind !== "state").length - shown.length;
  const legend = LEGEND.map(
    (name, i) =>
      `<rect x="${12 + i * 106}" y="40" width="12" height="12" fill="${COLOURS[name]!}" stroke="#888"/>` +
      `<text x="${28 + i * 106}" y="50" class="t">${name}</text>`,
  ).join("");
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${page.height.toFixed(0)}" font-family="sans-serif">
<style>.lane{font-size:14px;font-weight:bold}.t{font-size:10px;fill:#555}.w{font-size:8.5px;fill:#37474f}.n{font-size:9.5px;fill:#222}.f{font-size:10px;fill:#c62828;font-weight:bold}.v{font-size:12px;fill:#c62828;font-weight:bold}.m{stroke:#607d8b;stroke-width:1}</style>
<defs><marker id="tip" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" markerHeight="6" orient="auto"><path d="M0 0L6 3L0 6z" fill="#607d8b"/></marker></defs>
<rect width="100%" height="100%" fill="#fff"/>
<text x="12" y="24" font-size="16" font-weight="bold">seed ${result.seed}: ${escape(promise)}</text>
<text x="${WIDTH - 12}" y="24" text-anchor="end" class="t">time in ms, from the top; long quiets are shortened; ${skipped} earlier marks left out</text>
${legend}
${body}</svg>
`;
}
