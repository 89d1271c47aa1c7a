/** Uses the API by types that openapi-typescript generated. Prints what the server answered, as JSON. */
import createClient from "openapi-fetch";
import type { paths } from "./api.js";

declare const process: { argv: string[] };
const [, , baseUrl, key] = process.argv;
const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${key}` } });

const appended = await client.POST("/api/v1/logs", {
  body: { action: "document.delete", actor: { id: "alice" }, metadata: { reason: "a b&c", "k8s.io/x": { y: "z" } } },
});
const query = { metadata: { reason: "a b&c", "k8s.io/x.y": "z" }, severity: ["INFO", "ERROR"] as ("INFO" | "ERROR")[], limit: 5 };
const listed = await client.GET("/api/v1/logs", { params: { query } });
const others = await client.GET("/api/v1/logs", { params: { query: { metadata: { reason: "a b" } } } });
const refused = await client.GET("/api/v1/logs", { params: { query: { limit: 0 } } });
const counted = await client.GET("/api/v1/logs/stats", { params: { query: { by: ["action"], metadata: { reason: "a b&c" } } } });
console.log(
  JSON.stringify({
    seq: appended.data?.seq,
    found: listed.data?.items.map((record) => record.seq),
    others: others.data?.items.length,
    code: refused.error?.code,
    total: counted.data?.total,
  }),
);
