// Structured output: by the parse helpers of both OpenAI APIs, whole and streamed.
import assert from "node:assert/strict";
import { test } from "node:test";
import { makeParseableResponseFormat, makeParseableTextFormat, model, sdk, trip, tripSchema, user } from "./kit.mjs";

const format = makeParseableResponseFormat(
    { type: "json_schema", json_schema: { name: "trip", strict: true, schema: tripSchema } }, JSON.parse);
const textFormat = makeParseableTextFormat({ type: "json_schema", name: "trip", strict: true, schema: tripSchema }, JSON.parse);
const messages = [user("plan a trip")];

test("chat.completions.parse", async () => {
    const reply = await sdk.chat.completions.parse({ model, messages, response_format: format });
    assert.deepEqual(reply.choices[0].message.parsed, trip);
});

test("chat.completions.stream", async () => {
    const reply = await sdk.chat.completions.stream({ model, messages, response_format: format }).finalChatCompletion();
    assert.deepEqual(reply.choices[0].message.parsed, trip);
});

test("responses.parse", async () => {
    const reply = await sdk.responses.parse({ model, input: "plan a trip", text: { format: textFormat } });
    assert.deepEqual(reply.output_parsed, trip);
});

test("responses.stream", async () => {
    const stream = sdk.responses.stream({ model, input: "plan a trip", text: { format: textFormat } });
    assert.deepEqual((await stream.finalResponse()).output_parsed, trip);
});
