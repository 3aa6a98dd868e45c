// The official JavaScript MCP client that speaks 2026-07-28, pinned to it and left to find out, against /mcp.
import assert from "node:assert/strict";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { test } from "node:test";
import { headers, info, script, textOf, url } from "./mcp_kit.mjs";

const home = join(process.env.NEXUS_NODE, "node_modules/@modelcontextprotocol/client/dist/index.mjs");
const { Client, StreamableHTTPClientTransport } = await import(pathToFileURL(home));

for (const mode of ["auto", { pin: "2026-07-28" }, "legacy"]) {
    const called = typeof mode === "string" ? mode : mode.pin;

    test(`${called}: tools, an agent with progress, resources`, async (context) => {
        const client = new Client(info, { capabilities: {}, versionNegotiation: { mode } });
        context.after(() => client.close());
        await client.connect(new StreamableHTTPClientTransport(url, { requestInit: { headers } }));
        assert.equal(client.getNegotiatedProtocolVersion(), mode === "legacy" ? "2025-11-25" : "2026-07-28");
        const { tools } = await client.listTools();
        assert.equal(tools[0].name, "agent_assistant");
        const result = await client.callTool({ name: "text_processing", arguments: { operation: "upper", text: "é" } });
        assert.deepEqual(result.structuredContent, { text: "É" });
        const told = [];
        const answer = await client.callTool({ name: "agent_helper", arguments: { message: script({ text: "It is so." }) } },
            { onprogress: ({ message }) => told.push(message) });
        assert.match(answer.structuredContent.answer, /It is so\./);
        assert.ok(told.join("").includes("It is so."));
        const { resources } = await client.listResources();
        assert.equal(resources[0].uri, `nexus://runs/${answer.structuredContent.run_id}`);
        const refused = await client.callTool({ name: "text_processing", arguments: { operation: "fly" } });
        assert.equal(refused.isError, true);
        assert.match(textOf(refused), /^schema: /);
        await assert.rejects(client.readResource({ uri: "nexus://runs/none" }), { code: -32602 });
    });
}
