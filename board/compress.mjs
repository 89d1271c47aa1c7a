/** Lays a compressed copy by each coding beside each text file of the build, so that the server compresses nothing. */
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { argv } from "node:process";
import { brotliCompressSync, constants, gzipSync, zstdCompressSync } from "node:zlib";

const BYTES_MIN = 1024; // smaller files fit into one packet as they are
const CODINGS = {
  ".br": (text) => brotliCompressSync(text, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: text.length } }),
  ".zst": (text) => zstdCompressSync(text, { params: { [constants.ZSTD_c_compressionLevel]: 19 } }),
  ".gz": (text) => gzipSync(text, { level: 9 }),
};

const folder = argv[2];
for (const name of readdirSync(folder, { recursive: true })) {
  const path = join(folder, name);
  if (name.startsWith(".") || !/\.(html|js|css|svg|json)$/.test(name) || statSync(path).size < BYTES_MIN) continue;
  for (const [suffix, compress] of Object.entries(CODINGS)) writeFileSync(path + suffix, compress(readFileSync(path)));
}
