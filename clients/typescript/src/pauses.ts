/** Which failures pass by themselves, and how long to wait before the next attempt. */
import { Problem, Unreachable } from "./errors.ts";

/** A timer of more milliseconds fires at once, Infinity included. */
export const TIMER_MS_MAX = 2 ** 31 - 1;
const FIRST_MS = 200;
const LONGEST_MS = 30_000;
/** A longer `Retry-After` is not waited for: one more refusal costs less than a record that waits for hours. */
const ASKED_LONGEST_MS = 300_000;

/** True if the same request may succeed later: no answer, a time limit, a rate limit, or a server that is not well. */
export function passes(error: unknown): boolean {
  if (error instanceof Unreachable) return true;
  return error instanceof Problem && (error.status === 408 || error.status === 429 || error.status >= 500);
}

/** Return the milliseconds before attempt `failures + 1`: what the server asked for, or more and more after each failure.
 *
 * Both are random in part, so that clients do not return all at once.
 */
export function pauseMs(failures: number, error: unknown, random: () => number = Math.random): number {
  const growing = Math.min(LONGEST_MS, FIRST_MS * 2 ** (failures - 1)) * (0.5 + random() / 2);
  const asked = error instanceof Problem ? (error.retryAfter ?? 0) * 1000 : 0;
  return Math.max(growing, Math.min(ASKED_LONGEST_MS, asked) * (1 + random() / 4));
}

/** Wait. Throws the reason of `signal` as soon as it aborts. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", abort, { once: true });
  });
}
