// The official JavaScript MCP client of the session era (one package for both sides) against /mcp.
import assert from "node:assert/strict";
import { test } from "node:test";
import { headers, info, require, script, textOf, url } from "./mcp_kit.mjs";

const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");

async function connected(work) {
    const client = new Client(info, { capabilities: {} });
    const transport = new StreamableHTTPClientTransport(url, { requestInit: { headers } });
    await client.connect(transport);
    try {
        await work(client, transport);
    } finally {
        await transport.terminateSession();
        await client.close();
    }
}

test("tools are listed, called, and their output fits their schema", async () => {
    await connected(async (client, transport) => {
        assert.equal(client.getServerVersion().name, "nexus");
        assert.match(transport.sessionId, /^[A-Za-z0-9_-]{43}$/);
        await client.ping();
        const { tools } = await client.listTools();
        assert.ok(tools.find((tool) => tool.name === "agent_helper").outputSchema);
        const result = await client.callTool({ name: "text_processing", arguments: { operation: "upper", text: "é" } });
        assert.deepEqual(result.structuredContent, { text: "É" });
        const refused = await client.callTool({ name: "text_processing", arguments: { operation: "fly" } });
        assert.equal(refused.isError, true);
        assert.match(textOf(refused), /^schema: /);
        await assert.rejects(client.callTool({ name: "nothing", arguments: {} }), { code: -32602 });
    });
});

test("an agent tells its progress and answers", async () => {
    await connected(async (client) => {
        const told = [];
        const message = script({ tool_calls: [{ name: "text_processing", arguments: { operation: "upper", text: "abc" } }] }, { text: "It is ABC." });
        const result = await client.callTool({ name: "agent_helper", arguments: { message } }, undefined,
            { onprogress: ({ progress, message: text }) => told.push([progress, text]) });
        assert.match(result.structuredContent.answer, /It is ABC\./);
        assert.ok(told.length > 0 && told.every(([progress], i) => i === 0 || progress > told[i - 1][0]));
        const run = await client.readResource({ uri: `nexus://runs/${result.structuredContent.run_id}` });
        assert.equal(JSON.parse(run.contents[0].text).status, "completed");
    });
});

test("an aborted call is cancelled at the server", async () => {
    await connected(async (client) => {
        const abort = new AbortController();
        const message = script({ sleep_ms: 30000 }, { text: "never" });
        setTimeout(() => abort.abort("enough"), 300);
        await assert.rejects(client.callTool({ name: "agent_helper", arguments: { message } }, undefined, { signal: abort.signal }));
        for (let i = 0; i < 100; i++) {
            const { resources } = await client.listResources();
            const run = JSON.parse((await client.readResource({ uri: resources[0].uri })).contents[0].text);
            if (run.status === "cancelled") return;
            await new Promise((resolve) => setTimeout(resolve, 100));
        }
        assert.fail("the run goes on");
    });
});
