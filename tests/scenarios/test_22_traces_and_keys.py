"""Traces as a collector gets them, and the limits of virtual keys, on the real program."""

import http.server
import json
import threading
import time

import pytest


class Collector(http.server.BaseHTTPRequestHandler):
    spans = []
    heads = []

    def do_POST(self):
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.heads.append((self.path, self.headers.get("Authorization")))
        for resource in document["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                self.spans.extend(scope["spans"])
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    Collector.spans, Collector.heads = [], []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def span_named(prefix):
    for _ in range(200):
        for span in Collector.spans:
            if span["name"].startswith(prefix):
                return span
        time.sleep(0.1)
    raise AssertionError(f"no span {prefix}; there are {[span['name'] for span in Collector.spans]}")


def attributes(span):
    return {item["key"]: next(iter(item["value"].values())) for item in span["attributes"]}


CHAT = {"model": "fast", "messages": [{"role": "user", "content": "hi"}]}
OFFLINE = {"providers": [{"name": "offline", "type": "offline"}],
           "models": [{"name": "fast", "targets": [{"provider": "offline", "model": "offline"}]},
                      {"name": "slow", "targets": [{"provider": "offline", "model": "offline"}]}]}


def test_a_call_is_two_spans_of_the_callers_trace(start, collector):
    served = start({**OFFLINE, "tracing": {"endpoint": collector, "sample": "0%", "authorization": ["Bearer sink"]}})
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    plain = served.admin.post("/v1/chat/completions", json=CHAT)                    # not sampled here ...
    traced = served.admin.post("/v1/chat/completions", json={**CHAT, "stream": True},
                               headers={"traceparent": f"00-{trace}-{parent}-01"})  # ... but by its caller
    assert plain.status_code == traced.status_code == 200
    server, model = span_named("POST /v1/chat/completions"), span_named("chat fast")
    assert server["traceId"] == model["traceId"] == trace
    assert server["parentSpanId"] == parent and model["parentSpanId"] == server["spanId"]
    assert attributes(server)["http.response.status_code"] == "200"
    told = attributes(model)
    assert told["gen_ai.request.model"] == "fast" and told["gen_ai.provider.name"] == "offline"
    assert int(told["gen_ai.usage.output_tokens"]) > 0
    assert len(Collector.spans) == 2 and set(Collector.heads) == {("/v1/traces", "Bearer sink")}
    assert served.admin_key not in json.dumps(Collector.spans)


def make_key(served, **limits):
    answer = served.admin.post("/api/v1/keys", json={"name": "app", "role": "user", **limits})
    assert answer.status_code == 201, answer.text
    return answer.json()


def call(served, key, model="fast"):
    return served.admin.post("/v1/chat/completions", json={**CHAT, "model": model},
                             headers={"Authorization": f"Bearer {key}"})


def test_a_virtual_key_is_held_to_its_models_and_rates(start):
    served = start(OFFLINE)
    made = make_key(served, models=["fast"], requests_per_minute=3)
    assert call(served, made["key"], "slow").status_code == 403
    assert call(served, made["key"], "agent:assistant").status_code == 403
    assert call(served, made["key"]).status_code == 200
    refused = call(served, made["key"])
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
    changed = served.admin.http.patch(f"/api/v1/keys/{made['id']}", json={"requests_per_minute": None, "models": ["slow"]})
    assert changed.status_code == 200 and changed.json()["models"] == ["slow"]
    assert call(served, made["key"], "slow").status_code == 200 and call(served, made["key"]).status_code == 403


def test_a_key_spends_its_budget_and_no_more(start):
    served = start(OFFLINE)
    made = make_key(served, budget={"tokens": 1200})
    answers = [call(served, made["key"]) for _ in range(20)]
    codes = [answer.status_code for answer in answers]
    assert codes[0] == 200 and codes[-1] == 402 and set(codes) == {200, 402}
    assert answers[-1].headers["x-should-retry"] == "false"
    budget = served.admin.get(f"/api/v1/budgets/key/{made['id']}").json()
    assert budget["spent"]["tokens"] + budget["reserved"]["tokens"] <= 1200
    assert call(served, served.admin_key).status_code == 200        # others are not touched


def test_a_rotated_key_replaces_the_old_one_and_a_limited_key_makes_none(start):
    served = start(OFFLINE)
    made = make_key(served, requests_per_minute=100)
    denied = served.admin.post("/api/v1/keys", json={"name": "more"}, headers={"Authorization": f"Bearer {made['key']}"})
    assert denied.status_code == 403
    fresh = served.admin.post(f"/api/v1/keys/{made['id']}/rotate", json={}).json()
    assert fresh["id"] == made["id"] and fresh["key"] != made["key"]
    assert call(served, made["key"]).status_code == 401 and call(served, fresh["key"]).status_code == 200
