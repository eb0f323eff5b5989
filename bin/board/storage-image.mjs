/**
 * An image of Espruino's Storage: files one after the other, each behind its head, in erased flash.
 *
 *     [ size u32 · name, 28 bytes padded with 0 ] [ content, padded to whole words ] ...  0xff
 *
 * The interpreter's Linux builds keep it in the file `espruino.flash` of their working directory.
 */

/** @unit bytes */
export const HEAD_BYTES = 32;
const NAME_BYTES = 28;
/** The file that is run at boot. */
export const BOOT_FILE = ".bootcde";

/** @unit bytes that a file takes */
export function roomOf(contentBytes) {
  return HEAD_BYTES + ((contentBytes + 3) & ~3);
}

/** @param files name to content @param totalBytes size of the flash */
export function storageImage(files, totalBytes) {
  const image = Buffer.alloc(totalBytes, 0xff);
  let at = 0;
  for (const [name, content] of Object.entries(files)) {
    if (name.length > NAME_BYTES) throw new Error(`a name in Storage has ${NAME_BYTES} characters`);
    if (at + roomOf(content.length) > totalBytes) throw new Error("the Storage is full");
    image.writeUInt32LE(content.length, at);
    image.fill(0, at + 4, at + HEAD_BYTES);
    image.write(name, at + 4, "latin1");
    content.copy(image, at + HEAD_BYTES);
    at += roomOf(content.length);
  }
  return image;
}

/**
 * What boots a board that has room for two images: it takes the newest whose content is what its name promises, and
 * leaves that name in `fw`. Written once; no update replaces it.
 */
export const LOADER =
  "var fw=(function(s,l,i,n){for(i=l.length-1;i>=0;i--){n=l[i];" +
  "if((E.CRC32(s.read(n))>>>0)==parseInt(n.substr(7),16))return n}})" +
  '(require("Storage"),require("Storage").list(/^fw\\d\\d\\d\\d-/).sort());' +
  'if(fw)eval(require("Storage").read(fw));else print("dyad: no firmware here is whole")';

/** Images of a firmware that a board's Storage has room for beside its journals: 2, or 1. */
export function imagesOf(stored, journals, storageBytes) {
  return roomOf(LOADER.length) + 2 * roomOf(stored) + journals <= storageBytes ? 2 : 1;
}
