import type { ChildProcess } from "node:child_process";

export function pathOf(name: string): string;
export function isOnPath(name: string): boolean;
export function onOneProcessor(command: readonly string[]): string[];
export const GUARD_STREAM: 3;
export function guarded(command: readonly string[]): string[];
export function releaseGuard(child: ChildProcess): void;
