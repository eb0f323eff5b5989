/**
 * Espruino's Storage over a piece of flash: files one after the other, each behind its head, in erased bytes.
 *
 *     [ size u32 · name, 28 bytes ] [ content, padded to whole words ] ...  0xff
 *
 * As in flash, a write only clears bits; a file is erased by clearing its name, and its room comes back only by
 * compaction, which moves the files that are left. Source: espruino.com/Reference#Storage and what the interpreter does.
 */

const HEAD_BYTES = 32;
const NAME_BYTES = 28;
const ERASED = 0xff;

/** The flash itself. */
export interface FlashMedium {
  readonly bytes: Uint8Array;
  /** These bytes have changed. Returns when they are as lasting as the medium can make them. */
  keep(offset: number, length: number): void;
}

interface StoredFile {
  name: string;
  head: number;
  /** Where its content begins. */
  at: number;
  size: number;
}

const rounded = (size: number): number => (size + 3) & ~3;

export class Storage {
  constructor(private readonly medium: FlashMedium) {}

  /** All files, erased ones with the name "". */
  private files(): { list: StoredFile[]; end: number } {
    const { bytes } = this.medium;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const list: StoredFile[] = [];
    let head = 0;
    while (head + HEAD_BYTES <= bytes.length) {
      const size = view.getUint32(head, true);
      if (size === 0xffffffff) break;
      const at = head + HEAD_BYTES;
      if (at + size > bytes.length) break;
      let name = "";
      for (let i = 0; i < NAME_BYTES; i++) {
        const code = bytes[head + 4 + i]!;
        if (code === 0) break;
        name += String.fromCharCode(code);
      }
      list.push({ name, head, at, size });
      head = at + rounded(size);
    }
    return { list, end: head };
  }

  private find(name: string): StoredFile | undefined {
    return name === "" ? undefined : this.files().list.find((file) => file.name === name);
  }

  has(name: string): boolean {
    return this.find(name) !== undefined;
  }

  /** A copy of a file's content. */
  read(name: string): Uint8Array<ArrayBuffer> {
    const file = this.find(name);
    if (file === undefined) throw new Error(`no file ${name}`);
    return new Uint8Array(this.medium.bytes.subarray(file.at, file.at + file.size));
  }

  names(): string[] {
    return this.files()
      .list.map((file) => file.name)
      .filter((name) => name !== "");
  }

  /** Bytes behind the last file, erased files included. */
  free(): number {
    return this.medium.bytes.length - this.files().end;
  }

  erase(name: string): void {
    const file = this.find(name);
    if (file === undefined) return;
    this.medium.bytes.fill(0, file.head + 4, file.head + HEAD_BYTES);
    this.medium.keep(file.head + 4, NAME_BYTES);
  }

  /** @param size of the whole file, 0: that of the data. @throws when there is no room, or no such file to write into */
  write(name: string, data: Uint8Array, offset: number, size: number): void {
    const whole = size > 0 ? size : data.length;
    let file = this.find(name);
    if (file !== undefined && offset === 0 && !this.fits(file, data, whole)) {
      this.erase(name);
      file = undefined;
    }
    if (file === undefined) {
      if (offset > 0) throw new Error("Can't write: file doesn't exist");
      file = this.create(name, whole);
    }
    if (offset + data.length > file.size) throw new Error("Too much data for file");
    const { bytes } = this.medium;
    const start = file.at + offset;
    for (let i = 0; i < data.length; i++) bytes[start + i]! &= data[i]!;
    this.medium.keep(start, data.length);
  }

  /** Whether the data can go into the file's erased bytes, or is there already. */
  private fits(file: StoredFile, data: Uint8Array, whole: number): boolean {
    if (file.size !== whole) return false;
    const { bytes } = this.medium;
    for (let i = 0; i < data.length; i++) {
      const held = bytes[file.at + i]!;
      if (held !== ERASED && held !== data[i]) return false;
    }
    return true;
  }

  private create(name: string, size: number): StoredFile {
    if (name.length === 0 || name.length > NAME_BYTES) throw new Error("Invalid filename");
    const needed = HEAD_BYTES + rounded(size);
    if (this.free() < needed) this.compact();
    const head = this.files().end;
    const { bytes } = this.medium;
    if (bytes.length - head < needed) throw new Error("Unable to find or create file");
    new DataView(bytes.buffer, bytes.byteOffset, bytes.length).setUint32(head, size, true);
    for (let i = 0; i < NAME_BYTES; i++) {
      bytes[head + 4 + i] = i < name.length ? name.charCodeAt(i) : 0;
    }
    this.medium.keep(head, HEAD_BYTES);
    return { name, head, at: head + HEAD_BYTES, size };
  }

  /** Moves the files together. A power cut meanwhile can lose any of them. */
  compact(): void {
    const { bytes } = this.medium;
    let to = 0;
    for (const file of this.files().list) {
      if (file.name === "") continue;
      const length = HEAD_BYTES + rounded(file.size);
      bytes.copyWithin(to, file.head, file.head + length);
      to += length;
    }
    bytes.fill(ERASED, to);
    this.medium.keep(0, bytes.length);
  }
}
