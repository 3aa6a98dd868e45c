// Embeddings, in the encoding that the SDK asks for and in numbers.
import assert from "node:assert/strict";
import { test } from "node:test";
import { model, OpenAI, sdk } from "./kit.mjs";

test("vectors come in order, in both encodings", async () => {
    const input = ["one", "two", "one"];
    const packed = await sdk.embeddings.create({ model, input, dimensions: 6 });
    const written = await sdk.embeddings.create({ model, input, dimensions: 6, encoding_format: "float" });
    assert.deepEqual(packed.data.map((each) => each.index), [0, 1, 2]);
    assert.equal(packed.usage.prompt_tokens, packed.usage.total_tokens);
    packed.data.forEach((each, i) => {
        assert.equal(each.embedding.length, 6);
        each.embedding.forEach((number, k) => assert.ok(Math.abs(number - written.data[i].embedding[k]) < 1e-6));
    });
    assert.deepEqual([...packed.data[0].embedding], [...packed.data[2].embedding]);
});

test("what cannot be embedded is refused", async () => {
    await assert.rejects(sdk.embeddings.create({ model, input: "" }), OpenAI.BadRequestError);
    await assert.rejects(sdk.embeddings.create({ model: "nothing", input: "a" }), OpenAI.NotFoundError);
});
