// Chat Completions: whole, streamed, with usage.
import assert from "node:assert/strict";
import { test } from "node:test";
import { collect, model, sdk, user } from "./kit.mjs";

const WORDS = 'Grüße, "welt" – 你好 🚀';

test("an answer comes whole with its usage", async () => {
    const reply = await sdk.chat.completions.create({ model, messages: [user(`say: ${WORDS}`)] });
    assert.equal(reply.object, "chat.completion");
    assert.equal(reply.choices[0].message.content, WORDS);
    assert.equal(reply.choices[0].finish_reason, "stop");
    assert.equal(reply.usage.total_tokens, reply.usage.prompt_tokens + reply.usage.completion_tokens);
    assert.equal(reply.usage.prompt_tokens, 100);
    assert.equal(reply.usage.prompt_tokens_details.cached_tokens, 40);
    assert.ok(reply._request_id);
});

test("a streamed answer has the same words in pieces", async () => {
    const chunks = await collect(await sdk.chat.completions.create({ model, messages: [user(`say: ${WORDS}`)], stream: true }));
    const pieces = chunks.map((chunk) => chunk.choices[0].delta.content ?? "");
    assert.equal(pieces.join(""), WORDS);
    assert.ok(pieces.filter((piece) => piece).length > 1);
    assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
});

test("a stream ends with the usage when it is asked for", async () => {
    const request = { model, messages: [user("say: one two")], stream: true, stream_options: { include_usage: true } };
    const chunks = await collect(await sdk.chat.completions.create(request));
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.equal(chunks.at(-1).usage.completion_tokens, 20);
});

test("the stream helper puts the pieces together", async () => {
    const stream = sdk.chat.completions.stream({ model, messages: [user(`say: ${WORDS}`)] });
    assert.equal(await stream.finalContent(), WORDS);
    assert.equal((await stream.finalChatCompletion()).choices[0].finish_reason, "stop");
});

test("a stream may be left early, and the next call works", async () => {
    const stream = await sdk.chat.completions.create({ model, messages: [user(`say: ${"word ".repeat(200)}`)], stream: true });
    for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
    const reply = await sdk.chat.completions.create({ model, messages: [user("say: still here")] });
    assert.equal(reply.choices[0].message.content, "still here");
});

test("models and agents are listed", async () => {
    const names = (await collect(sdk.models.list())).map((each) => each.id);
    assert.ok(names.includes(model));
    assert.equal((await sdk.models.retrieve(model)).id, model);
});
