// Kernels from WGSL to Metal's language and to HLSL, by naga, which is what wgpu itself translates with; with the
// argument spirv, to SPIR-V instead.
// Reads {name: wgsl} as JSON from standard input; writes {name: {msl, hlsl} or {spirv: words, base64} or {error}} as JSON.
import { readFileSync } from "node:fs";
import { parseWgsl, validate, writeHlsl, writeMsl, writeSpirv } from "naga-wasm";

const toSpirv = process.argv[2] === "spirv";

function written(module, info, source) {
  if (toSpirv) {
    const words = writeSpirv(module, info);
    return { spirv: Buffer.from(words.buffer, words.byteOffset, words.byteLength).toString("base64") };
  }
  return {
    msl: writeMsl(module, info, { langVersion: [2, 4] }),
    hlsl: writeHlsl(module, info, { shaderModel: source.includes("subgroup") ? "6_0" : "5_1" }),
  };
}

function translated(source) {
  try {
    const module = parseWgsl(source);
    const info = validate(module);
    const made = written(module, info, source);
    info.free();
    module.free();
    return made;
  } catch (error) {
    return { error: error.formatted ?? String(error) };
  }
}

const sources = JSON.parse(readFileSync(0, "utf8"));
const results = Object.fromEntries(Object.entries(sources).map(([name, source]) => [name, translated(source)]));
process.stdout.write(JSON.stringify(results));
