import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

declare const process: { env: Record<string, string | undefined> };

/** The API behind `npm run dev`. */
const API = process.env.DECKLOG_URL ?? "http://127.0.0.1:8321";

export default defineConfig({
  base: "/board/",
  plugins: [react()],
  build: {
    outDir: "../service/src/decklog/board",
    emptyOutDir: true,
    chunkSizeWarningLimit: 1000, // kB before compression; a test bounds what a first load takes
    assetsInlineLimit: 0, // the policy of the page allows no data: scripts or styles
    modulePreload: { polyfill: false }, // the polyfill is an inline script
    manifest: true,
    rolldownOptions: {
      input: { index: "index.html", embed: "embed.html", element: "src/embed/element.ts" },
      // The script of `<decklog-viewer>` has one address for ever: pages of other origins name it.
      output: { entryFileNames: ({ name }) => (name === "element" ? "embed.js" : "assets/[name]-[hash].js") },
    },
    target: "es2023",
  },
  server: { proxy: { "/api": API, "/board/config.json": API, "/board/oidc": API } },
});
