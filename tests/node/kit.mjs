// What the scripts share: the SDK from where it was installed, a client of the server under test, words for the fake provider.
//   NEXUS_NODE    folder that holds node_modules
//   NEXUS_URL, NEXUS_KEY, NEXUS_MODEL   the server, a key, the model or agent that is asked
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.NEXUS_NODE, "package.json"));

export const { default: OpenAI } = require("openai");
export const { makeParseableResponseFormat, makeParseableTextFormat } = require("openai/lib/parser");

export const model = process.env.NEXUS_MODEL;
export const isAgent = model.startsWith("agent:");

export function client(options = {}) {
    return new OpenAI({ baseURL: `${process.env.NEXUS_URL}/v1`, apiKey: process.env.NEXUS_KEY, maxRetries: 0, ...options });
}

export const sdk = client();

export function user(content) {
    return { role: "user", content };
}

export const weatherSchema = {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
};
export const weather = {
    type: "function",
    function: { name: "weather", description: "Weather of a city", strict: true, parameters: weatherSchema },
};
export const twoCities = 'use weather {"city": "Oslo"}\nuse weather {"city": "Lima"}';

export const tripSchema = {
    type: "object",
    properties: { title: { type: "string" }, days: { type: "integer" }, stops: { type: "array", items: { type: "string" } } },
    required: ["title", "days", "stops"],
    additionalProperties: false,
};
export const trip = { title: "text é", days: 7, stops: ["text é", "text é"] };

export async function collect(stream) {
    const events = [];
    for await (const event of stream) events.push(event);
    return events;
}

// The stream helper gives the answer as it came, without output_text.
export function textOf(response) {
    return response.output.filter((item) => item.type === "message").map((item) => item.content[0].text).join("");
}
