// Tools of the caller in Chat Completions: one, several at once, streamed, and the SDK's own loop.
import assert from "node:assert/strict";
import { test } from "node:test";
import { model, sdk, twoCities, user, weather, weatherSchema } from "./kit.mjs";

const temperatures = { Oslo: "cold", Lima: "warm" };

function resultsOf(message) {
    return message.tool_calls.map((call) => ({
        role: "tool", tool_call_id: call.id, content: temperatures[JSON.parse(call.function.arguments).city],
    }));
}

async function roundTrip(question, ask, expected) {
    const messages = [user(question)];
    const first = await ask(messages);
    assert.equal(first.choices[0].finish_reason, "tool_calls");
    const { role, content, tool_calls } = first.choices[0].message;
    messages.push({ role, content, tool_calls: tool_calls.map(({ id, type, function: { name, arguments: text } }) =>
        ({ id, type, function: { name, arguments: text } })) }, ...resultsOf(first.choices[0].message));
    const second = await ask(messages);
    assert.equal(second.choices[0].message.content, expected);
}

const whole = (messages) => sdk.chat.completions.create({ model, messages, tools: [weather] });
const streamed = (messages) => sdk.chat.completions.stream({ model, messages, tools: [weather] }).finalChatCompletion();

test("a tool is called and its result comes back", () => roundTrip('use weather {"city": "Oslo"}', whole, "weather: cold"));
test("a streamed tool call comes in pieces", () => roundTrip('use weather {"city": "Oslo"}', streamed, "weather: cold"));
test("parallel tools", () => roundTrip(twoCities, whole, "weather: cold | weather: warm"));
test("parallel tools, streamed", () => roundTrip(twoCities, streamed, "weather: cold | weather: warm"));

for (const stream of [false, true]) {
    test(`the SDK's own loop runs the tools, ${stream ? "streamed" : "whole"}`, async () => {
        const seen = [];
        const run = ({ city }) => {
            seen.push(city);
            return temperatures[city];
        };
        const tool = { type: "function", function: { name: "weather", description: "Weather", parameters: weatherSchema, parse: JSON.parse, function: run } };
        const runner = sdk.chat.completions.runTools({ model, messages: [user(twoCities)], tools: [tool], stream });
        assert.equal(await runner.finalContent(), "weather: cold | weather: warm");
        assert.deepEqual(seen, ["Oslo", "Lima"]);
    });
}
