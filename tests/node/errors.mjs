// Errors by their class, and what the SDK tries again.  NEXUS_MODEL is the way out; models named after it fail in each way.
import assert from "node:assert/strict";
import { test } from "node:test";
import { client, collect, model, OpenAI, sdk, user } from "./kit.mjs";

const told = { 400: 400, 401: 502, 403: 502, 404: 400, 429: 429, 500: 503, 529: 503 };

async function failure(promise) {
    const error = await promise.then(() => assert.fail("no error"), (caught) => caught);
    assert.ok(error instanceof OpenAI.APIError, `${error}`);
    assert.ok(error.requestID && error.message);
    return error;
}

function hello(name) {
    return { model: name, messages: [user("hello")] };
}

for (const [status, expected] of Object.entries(told)) {
    test(`${status} of the provider is ${expected}`, async () => {
        const error = await failure(sdk.chat.completions.create(hello(`fails-${model}-${status}-node`)));
        assert.equal(error.status, expected);
        if (status === "429") assert.ok(Number(error.headers.get("retry-after")) >= 1);
    });
}

for (const status of [429, 500]) {
    test(`the SDK tries again after ${status}`, async () => {
        const reply = await client({ maxRetries: 2 }).chat.completions.create({ ...hello(`flaky-${model}-${status}-node`), stream: true });
        const chunks = await collect(reply);
        assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), "You said: hello");
    });
}

test("an unknown model is 404", async () => {
    assert.ok(await failure(sdk.chat.completions.create(hello("gigantic"))) instanceof OpenAI.NotFoundError);
    assert.ok(await failure(sdk.responses.create({ model: "agent:nobody", input: "hello" })) instanceof OpenAI.NotFoundError);
});

test("a wrong key is 401", async () => {
    const wrong = client({ apiKey: "nxk_wrong" });
    assert.ok(await failure(wrong.chat.completions.create(hello(model))) instanceof OpenAI.AuthenticationError);
});

test("a bad body is 400", async () => {
    assert.ok(await failure(sdk.chat.completions.create({ model, messages: "hello" })) instanceof OpenAI.BadRequestError);
});

test("over budget is 402, and not tried again", async () => {
    let requests = 0;
    const counting = (...call) => (requests++, fetch(...call));
    const poor = client({ maxRetries: 2, fetch: counting, defaultHeaders: { "X-Nexus-Session": process.env.NEXUS_POOR_SESSION } });
    const error = await failure(poor.chat.completions.create(hello(model)));
    assert.equal(error.status, 402);
    assert.equal(error.headers.get("x-should-retry"), "false");
    assert.equal(requests, 1);
});
