/** Browsers and systems by their `User-Agent`: an aid to recognise one's own, never evidence. */

const PROGRAMS: [RegExp, string][] = [
  [/Edg\/(\d+)/, "Edge"],
  [/OPR\/(\d+)/, "Opera"],
  [/Firefox\/(\d+)/, "Firefox"],
  [/(?:Headless)?Chrom(?:e|ium)\/(\d+)/, "Chrome"],
  [/Version\/(\d+)[\d.]* (?:Mobile\/\S+ )?Safari\//, "Safari"],
  [/^curl\/(\d+)/, "curl"],
];
const SYSTEMS: [RegExp, string][] = [
  [/Android/, "Android"],
  [/iPhone|iPad/, "iOS"],
  [/Windows/, "Windows"],
  [/Mac OS X|Macintosh/, "macOS"],
  [/CrOS/, "ChromeOS"],
  [/Linux|X11/, "Linux"],
];

/** Return a short name such as "Firefox 145 on Linux"; the text itself where it is not known, cut. */
export function deviceText(agent: string | null): string {
  if (!agent) return "Unknown program";
  const found = PROGRAMS.map(([pattern, name]) => [pattern.exec(agent)?.[1], name] as const).find(([major]) => major);
  if (!found) return agent.length > 60 ? `${agent.slice(0, 59)}…` : agent;
  const system = SYSTEMS.find(([pattern]) => pattern.test(agent))?.[1];
  return `${found[1]} ${found[0]}${system ? ` on ${system}` : ""}`;
}
