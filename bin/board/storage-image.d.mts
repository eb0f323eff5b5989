export const HEAD_BYTES: number;
export const BOOT_FILE: string;
export function roomOf(contentBytes: number): number;
export function storageImage(files: Record<string, Buffer>, totalBytes: number): Buffer;
export const LOADER: string;
export function imagesOf(stored: number, journals: number, storageBytes: number): number;
