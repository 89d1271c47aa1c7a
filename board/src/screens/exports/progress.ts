/** The arithmetic of an export's progress. Pure. */

export interface Sample {
  at: number;
  records: number;
  bytes: number;
}

/** Milliseconds over which the rate is taken. */
const WINDOW = 8_000;

/** Return the samples with a new one, without those that are older than the window. */
export function sampled(samples: readonly Sample[], next: Sample): Sample[] {
  return [...samples.filter((each) => each.at > next.at - WINDOW), next];
}

export interface Progress {
  /** From 0 to 1; null where the number of records is not known. */
  fraction: number | null;
  recordsPerSecond: number;
  bytesPerSecond: number;
  /** null where it cannot be told. */
  secondsLeft: number | null;
}

/** Return the progress that samples show. `total` is null where it is not known. */
export function progressOf(samples: readonly Sample[], total: number | null): Progress {
  const first = samples[0];
  const last = samples.at(-1);
  const seconds = first && last ? (last.at - first.at) / 1_000 : 0;
  const rate = (of: "records" | "bytes") => (first && last && seconds > 0 ? (last[of] - first[of]) / seconds : 0);
  const records = last?.records ?? 0;
  const recordsPerSecond = rate("records");
  return {
    fraction: total === null ? null : total === 0 ? 1 : Math.min(1, records / total),
    recordsPerSecond,
    bytesPerSecond: rate("bytes"),
    secondsLeft: total === null || recordsPerSecond <= 0 ? null : Math.max(0, total - records) / recordsPerSecond,
  };
}
