// Responses: whole, streamed, continued by id, with tools, stored and forgotten.
import assert from "node:assert/strict";
import { test } from "node:test";
import { collect, isAgent, model, OpenAI, sdk, textOf, twoCities, weatherSchema } from "./kit.mjs";

const tool = { type: "function", name: "weather", description: "Weather of a city", strict: true, parameters: weatherSchema };

test("an answer comes whole and is found again", async () => {
    const made = await sdk.responses.create({ model, input: "say: blue", metadata: { k: "v" } });
    assert.equal(made.status, "completed");
    assert.equal(made.output_text, "blue");
    assert.equal(made.usage.total_tokens, 120);
    assert.equal((await sdk.responses.retrieve(made.id)).output_text, "blue");
    const items = await collect(sdk.responses.inputItems.list(made.id));
    assert.equal(items.at(-1).content[0].text, "say: blue");
    await sdk.responses.delete(made.id);
    await assert.rejects(sdk.responses.retrieve(made.id), OpenAI.NotFoundError);
});

test("events come in their order", async () => {
    const events = await collect(await sdk.responses.create({ model, input: "say: one two three", stream: true }));
    assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, index) => index));
    const types = events.map((event) => event.type);
    const first = types.indexOf("response.output_text.delta"), last = types.lastIndexOf("response.output_text.delta");
    assert.deepEqual(types.slice(0, first),
        ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]);
    assert.deepEqual(types.slice(last + 1),
        ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"]);
    assert.equal(events.filter((event) => event.delta).map((event) => event.delta).join(""), "one two three");
    assert.equal(events.at(-1).response.output[0].content[0].text, "one two three");
});

test("a conversation goes on by the id of its last answer", async () => {
    const first = await sdk.responses.create({ model, input: "say: one", instructions: isAgent ? undefined : "be brief" });
    const stream = sdk.responses.stream({ model, input: "say: two", previous_response_id: first.id });
    const second = await stream.finalResponse();
    assert.equal(textOf(second), "two");
    const third = await sdk.responses.create({ model, input: "say: three", previous_response_id: second.id });
    assert.equal(third.previous_response_id, second.id);
    const items = await collect(sdk.responses.inputItems.list(third.id, { order: "asc", limit: 2 }));
    assert.deepEqual(items.map((item) => item.content[0].text).filter((text) => text.startsWith("say: ")),
        ["say: one", "say: two", "say: three"]);
});

test("what may not be stored is not", async () => {
    const made = await sdk.responses.create({ model, input: "say: gone", store: false });
    await assert.rejects(sdk.responses.retrieve(made.id), OpenAI.NotFoundError);
    await assert.rejects(sdk.responses.create({ model, input: "say: more", previous_response_id: made.id }), { code: "previous_response_not_found" });
});

for (const isStream of [false, true]) {
    test(`parallel tools go back by previous_response_id, ${isStream ? "streamed" : "whole"}`, async () => {
        const ask = (body) => isStream ? sdk.responses.stream(body).finalResponse() : sdk.responses.create(body);
        const first = await ask({ model, input: twoCities, tools: [tool] });
        const calls = first.output.filter((item) => item.type === "function_call");
        assert.deepEqual(calls.map((call) => JSON.parse(call.arguments).city), ["Oslo", "Lima"]);
        const results = calls.map((call, index) => ({ type: "function_call_output", call_id: call.call_id, output: ["cold", "warm"][index] }));
        const second = await ask({ model, input: results, previous_response_id: first.id, tools: [tool] });
        assert.equal(textOf(second), "weather: cold | weather: warm");
    });
}
