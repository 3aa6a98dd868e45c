"""Embeddings by the official OpenAI SDK: vectors of the stand-in, in both encodings, and what is refused."""

import struct
import threading

import openai
import pytest
from openai import OpenAI

CONFIG = {
    "providers": [{"name": "offline", "type": "offline"}],
    "models": [{"name": "vectors", "embedder": "true", "cache": {"mode": "exact"},
                "targets": [{"provider": "offline", "model": "offline"}]}],
}


@pytest.fixture
def sdk(start):
    served = start(CONFIG)
    return OpenAI(base_url=served.url + "/v1", api_key=served.admin_key, max_retries=0)


def likeness(a, b):
    return sum(x * y for x, y in zip(a, b))


def float32(numbers):
    return struct.pack(f"<{len(numbers)}f", *numbers)


def test_vectors_are_the_same_in_both_encodings(sdk):
    packed = sdk.embeddings.create(model="vectors", input=["a tall tower", "rye bread"])    # base64, as the SDK asks
    written = sdk.embeddings.create(model="vectors", input=["a tall tower", "rye bread"], encoding_format="float")
    assert [item.index for item in packed.data] == [0, 1] and packed.model == "vectors"
    assert packed.usage.prompt_tokens == packed.usage.total_tokens > 0
    for one, other in zip(packed.data, written.data):
        assert len(one.embedding) == 1536 and float32(one.embedding) == float32(other.embedding)


def test_texts_that_share_words_are_near(sdk):
    texts = ["how tall is the tower", "the tower: how tall is it", "bake bread with rye"]
    near, nearer, far = (item.embedding for item in sdk.embeddings.create(model="vectors", input=texts, dimensions=512).data)
    assert likeness(near, nearer) > 0.6 and abs(likeness(near, far)) < 0.4


def test_what_made_an_answer_is_said(sdk):
    first = sdk.embeddings.with_raw_response.create(model="vectors", input="hello")
    second = sdk.embeddings.with_raw_response.create(model="vectors", input="hello")
    assert first.headers["nexus-stand-in"] == "offline"
    assert first.headers["nexus-cache"] == "miss" and second.headers["nexus-cache"].startswith("hit")
    assert first.parse().data[0].embedding == second.parse().data[0].embedding


@pytest.mark.parametrize("body, error", [
    ({"model": "nothing", "input": "a"}, openai.NotFoundError),
    ({"model": "vectors", "input": ""}, openai.BadRequestError),
    ({"model": "vectors", "input": ["a", ""]}, openai.BadRequestError),
    ({"model": "vectors", "input": "a", "dimensions": 9000}, openai.BadRequestError),
], ids=["unknown", "empty", "one empty", "too long"])
def test_what_cannot_be_embedded_is_refused(sdk, body, error):
    with pytest.raises(error):
        sdk.embeddings.create(**body)


def test_many_callers_each_get_their_own(sdk):
    alone = {word: sdk.embeddings.create(model="vectors", input=word).data[0].embedding for word in ("red", "green", "blue")}
    wrong = []

    def ask(number):
        words = [["red", "green", "blue"][(number + k) % 3] for k in range(2)]
        reply = sdk.embeddings.create(model="vectors", input=[*words, str(number)])
        if [item.embedding for item in reply.data[:2]] != [alone[word] for word in words]:
            wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
