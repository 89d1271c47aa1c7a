/** The wall clock of a zone. */
const formats = new Map<string, Intl.DateTimeFormat>();

/** Return the wall clock of a zone at an instant, as `2026-11-30 23:59:59.123`. */
export function clockText(instant: number | Date, zone: string): string {
  let format = formats.get(zone);
  if (!format) {
    format = new Intl.DateTimeFormat("sv-SE", {
      timeZone: zone,
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
      fractionalSecondDigits: 3,
    });
    formats.set(zone, format);
  }
  return format.format(instant).replace(",", ".");
}
