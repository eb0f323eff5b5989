/**
 * How a firmware gets into a board's Storage, decided before anything is written.
 *
 * A board with room for two images keeps the old one: each image is a file whose name tells its number and its
 * check sum, and what boots (`.bootcde`, written once) takes the newest that is whole.
 *
 *     .bootcde   fw0006-9c1d03aa   fw0007-52e0b711   dyad.0   dyad.1
 *     loader     the old one       the new one       the journals of the record
 *
 * A board without that room has the firmware itself in `.bootcde`; the old one goes before the new one comes.
 */

/** What precedes a file's content in Storage. @unit bytes */
const HEAD_BYTES = 32;
const IMAGE_NAME = /^fw(\d{4})-([0-9a-f]{8})$/;
const NUMBER_MAX = 9999;

export const BOOT_FILE = ".bootcde";
export const JOURNAL_FILES = ["dyad.0", "dyad.1"] as const;

/** A firmware that was built, as `dist/NAME.json` tells. */
export interface BuiltFirmware {
  name: string;
  /** `process.env.BOARD` of the boards it is for; undefined: any. */
  board: string | undefined;
  /** 0: any number. */
  variables: number;
  variableBytes: number;
  consoleBaud: number;
  /** Time of the watchdog that its firmware starts; 0: none. @unit s */
  watchdogSeconds: number;
  /** Images the board's Storage has room for, 1 or 2. */
  images: number;
  /** Room the two journals take, heads included. */
  journalBytes: number;
  /** What boots the newest whole image, where there is room for two. */
  loader: string;
}

/** A file in a board's Storage. */
export interface StoredFile {
  name: string;
  bytes: number;
}

/** What a board says of itself. */
export interface BoardFacts {
  board: string;
  version: string;
  variables: number;
  variableBytes: number;
  freeBytes: number;
  trashBytes: number;
  files: StoredFile[];
  /** The image that boots, by its name or `.bootcde`; undefined: none does. */
  boots: string | undefined;
}

export interface FlashPlan {
  /** The file to write. */
  image: string;
  /** It is there already, whole. */
  isThere: boolean;
  /** Files to erase first. */
  erase: string[];
  /** The room of erased files is needed. */
  compact: boolean;
  /** The loader has to be written last. */
  loader: boolean;
  /** The old firmware boots, whenever the power goes. */
  keepsOld: boolean;
  /** There is a firmware or a record to lose. */
  loses: boolean;
}

const roomOf = (bytes: number): number => HEAD_BYTES + ((bytes + 3) & ~3);
const numberOf = (name: string): number => Number(IMAGE_NAME.exec(name)?.[1] ?? 0);

/** @param crc CRC32 of its content @param number 1..9999 */
export function imageName(number: number, crc: number): string {
  return `fw${String(number).padStart(4, "0")}-${crc.toString(16).padStart(8, "0")}`;
}

export function isImage(name: string): boolean {
  return IMAGE_NAME.test(name);
}

/** The check sum an image's name promises. */
export function promisedCrc(name: string): number {
  return parseInt(IMAGE_NAME.exec(name)![2]!, 16);
}

/** @returns what is wrong with the board for this firmware, "" when nothing is */
export function mismatch(firmware: BuiltFirmware, facts: BoardFacts): string {
  if (firmware.board !== undefined && facts.board !== firmware.board) {
    return `it says that it is ${facts.board}, and ${firmware.name} is for ${firmware.board}`;
  }
  if (firmware.variables > 0 && facts.variables < firmware.variables) {
    return `it has ${facts.variables} variables, and ${firmware.name} was measured with ${firmware.variables}`;
  }
  if (firmware.variables > 0 && facts.variableBytes > firmware.variableBytes) {
    return `its variables have ${facts.variableBytes} bytes, and ${firmware.name} is for ${firmware.variableBytes}`;
  }
  return "";
}

/**
 * @param content the firmware's length and CRC32
 * @returns a plan, or why there is no room
 */
export function planFlash(
  firmware: BuiltFirmware,
  content: { bytes: number; crc: number },
  facts: BoardFacts,
): FlashPlan | string {
  const { files, boots } = facts;
  const two = firmware.images === 2;
  const images = files.filter((file) => isImage(file.name));
  const has = (name: string): boolean => files.some((file) => file.name === name);
  const sum = (names: string[]): number =>
    files
      .filter((file) => names.includes(file.name))
      .reduce((all, file) => all + roomOf(file.bytes), 0);

  // A file of our names that does not boot is an older image, or one that was never finished.
  const stale = images.map((file) => file.name).filter((name) => name !== boots);
  const journals = JOURNAL_FILES.filter((name) => !has(name)).length * (firmware.journalBytes / 2);
  const loader = two && (boots === undefined || !isImage(boots));
  const wanted = roomOf(content.bytes) + journals + (loader ? roomOf(firmware.loader.length) : 0);
  const running = boots === undefined ? [] : [boots];
  const recordThere = JOURNAL_FILES.some(has);

  const newest = Math.max(0, ...images.map((file) => numberOf(file.name)));
  const number = newest >= NUMBER_MAX ? 1 : newest + 1;
  const plan: FlashPlan = {
    image: two ? imageName(number, content.crc) : BOOT_FILE,
    isThere: false,
    erase: stale,
    compact: false,
    loader,
    keepsOld: true,
    loses: false,
  };
  if (two && boots !== undefined && isImage(boots) && promisedCrc(boots) === content.crc) {
    return { ...plan, image: boots, isThere: true, erase: [] };
  }
  if (newest >= NUMBER_MAX)
    return `the images' numbers have come to ${NUMBER_MAX}: erase its Storage`;

  const all = facts.freeBytes + facts.trashBytes + sum(stale);
  if (two && facts.freeBytes >= wanted) return plan;
  if (two && all >= wanted) {
    return { ...plan, compact: true, loses: boots !== undefined || recordThere };
  }
  if (all + sum(running) < wanted) {
    return `${wanted} bytes of Storage are needed, and ${all + sum(running)} are free or can be made so`;
  }
  const compact = facts.freeBytes < wanted;
  return {
    ...plan,
    erase: [...stale, ...running],
    compact,
    keepsOld: boots === undefined,
    loses: boots !== undefined || (compact && recordThere),
  };
}
