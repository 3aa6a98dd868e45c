// What the MCP scripts share: where the SDKs were installed, the server under test, a text result.
//   NEXUS_NODE    folder that holds node_modules
//   NEXUS_URL, NEXUS_KEY   the server and a key
import { createRequire } from "node:module";
import { join } from "node:path";

export const require = createRequire(join(process.env.NEXUS_NODE, "package.json"));

export const url = new URL(`${process.env.NEXUS_URL}/mcp`);
export const headers = { Authorization: `Bearer ${process.env.NEXUS_KEY}` };
export const info = { name: "nexus-tests", version: "1.0.0" };

export function script(...steps) {
    return `please\n[[offline ${JSON.stringify({ script: steps })}]]`;
}

export function textOf(result) {
    return result.content.map((block) => block.text).join("");
}
