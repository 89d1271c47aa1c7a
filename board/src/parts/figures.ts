/** Numbers and sizes as people read them. */
const grouped = new Intl.NumberFormat("en");

/** Return a whole number with separators: `12,345`. */
export function numberText(value: number): string {
  return grouped.format(value);
}

const SIZES = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Return a number of bytes as "1.4 MiB", and null as "size not known". */
export function bytesText(bytes: number | null): string {
  if (bytes === null) {
    return "size not known";
  }
  const step = bytes < 1 ? 0 : Math.min(SIZES.length - 1, Math.floor(Math.log2(bytes) / 10));
  const amount = bytes / 1_024 ** step;
  return `${amount >= 100 || step === 0 ? Math.round(amount) : amount.toFixed(1)} ${SIZES[step]}`;
}
