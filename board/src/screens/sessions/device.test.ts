import { expect, test } from "vitest";
import { deviceText } from "./device.ts";

test("browsers are named with their version and system", () => {
  const agents: [string, string][] = [
    ["Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0", "Firefox 145 on Linux"],
    [
      "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0",
      "Edge 142 on Windows",
    ],
    [
      "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/150.0.1.0 Safari/537.36",
      "Chrome 150 on Linux",
    ],
    [
      "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Mobile/15E148 Safari/604.1",
      "Safari 18 on iOS",
    ],
    ["curl/8.9.1", "curl 8"],
  ];
  for (const [agent, name] of agents) expect(deviceText(agent)).toBe(name);
});

test("what is not known stays as it is, cut, and as text", () => {
  expect(deviceText("<b>robot</b>")).toBe("<b>robot</b>");
  expect(deviceText("x".repeat(300))).toHaveLength(60);
  expect(deviceText(null)).toBe("Unknown program");
});
