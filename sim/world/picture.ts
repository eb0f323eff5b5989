/** What a picture of a run is drawn from: marks in order of time, kept only when someone will look. */
export interface Mark {
  atMs: number;
  /** state: what a machine is from here on; message: an arrow; text, fault, violation: words. */
  kind: "state" | "message" | "text" | "fault" | "violation";
  who: string;
  /** Of a message: where it goes, and when it is due there. */
  to: string;
  arrivesMs: number;
  text: string;
}

export class Picture {
  readonly marks: Mark[] = [];

  state(atMs: number, who: string, state: string): void {
    this.marks.push({ atMs, kind: "state", who, to: "", arrivesMs: atMs, text: state });
  }

  message(atMs: number, who: string, to: string, arrivesMs: number, text: string): void {
    this.marks.push({ atMs, kind: "message", who, to, arrivesMs, text });
  }

  say(atMs: number, kind: "text" | "fault" | "violation", who: string, text: string): void {
    this.marks.push({ atMs, kind, who, to: "", arrivesMs: atMs, text });
  }
}
