"""Backtests: what the recorded traffic would have been denied, cost, been routed to or filtered, with nothing changed."""

import json

import yaml
from harness.provider import FakeProvider, Text
from harness.scripts import call, say, script

NO_TOOLS = """
package nexus.agent.policy

import rego.v1

default allow := false

allow if input.action in {"run.start", "model.call"}
"""


def traffic(client) -> list:
    runs = []
    for text in (script(call("text_processing", operation="upper", text="abc"), say("Done.")), script(say("My address is ada@example.com."))):
        run_id = client.send(client.open_session(), text)
        client.wait(run_id, "completed")
        runs.append(run_id)
    return runs


def test_a_stricter_policy_is_told_what_it_would_have_denied(nexus, tmp_path):
    client = nexus.admin
    runs = traffic(client)
    before = client.get(f"/api/v1/runs/{runs[0]}/events", headers={"Accept": "application/json"}).json()
    reply = client.post("/api/v1/backtests", {"policy": {"modules": [{"name": "strict.rego", "source": NO_TOOLS}]}})
    assert reply.status_code == 200, reply.text
    policy = reply.json()["policy"]
    assert policy["newly_denied"] >= 1 and policy["unanswered"] == 0 and policy["without_budget"] == 0
    assert any(line["action"] == "tool.call" and "allow -> deny" in line["change"] for line in policy["changes"])
    assert any(example["run_id"] == runs[0] for example in policy["examples"])
    assert client.get(f"/api/v1/runs/{runs[0]}/events", headers={"Accept": "application/json"}).json() == before
    (tmp_path / "strict.rego").write_text(NO_TOOLS)
    result = nexus.command("backtest", "--policy", str(tmp_path), "--since", "1h")
    assert result.returncode == 0 and "would now be denied" in result.stdout, result.stdout + result.stderr


def test_the_policy_in_force_changes_nothing(nexus):
    client = nexus.admin
    traffic(client)
    modules = [{"name": module["name"], "source": module["source"]} for module in client.get("/api/v1/policies/rules").json()["modules"]]
    policy = client.post("/api/v1/backtests", {"policy": {"modules": modules}}).json()["policy"]
    assert policy["decisions"] == policy["same"] > 0, json.dumps(policy["changes"])


def test_a_broken_policy_is_refused_with_its_place(nexus):
    reply = nexus.admin.post("/api/v1/backtests", {"policy": {"modules": [{"name": "broken.rego", "source": "package nexus.agent.policy\nallow if {"}]}})
    assert reply.status_code == 400 and "broken.rego" in reply.json()["detail"]


def test_a_filter_is_told_what_it_would_have_masked_and_never_what_it_said(nexus):
    client = nexus.admin
    traffic(client)
    report = client.post("/api/v1/backtests", {"filter": {"pii": "mask"}})
    assert report.status_code == 200, report.text
    found = report.json()["filter"]
    assert found["masked"] >= 1 and any(line["group"] == "pii" for line in found["rules"])
    assert "ada@example.com" not in report.text


def test_a_filter_is_read_as_the_configuration_writes_it_and_a_misspelt_one_is_refused(nexus):
    client = nexus.admin
    traffic(client)
    flat = client.post("/api/v1/backtests", {"filter": {"pii": "mask"}}).json()["filter"]
    nested = client.post("/api/v1/backtests", {"filter": {"name": "strict", "groups": {"pii": "mask"}}})
    assert nested.status_code == 200, nested.text
    assert nested.json()["filter"]["masked"] == flat["masked"] >= 1
    for filter, wrong in (({"pi": "mask"}, "pi"), ({"groups": {"secret": "block"}}, "secret"), ({"groups": []}, "groups"),
                          ({"version": "1"}, "version")):
        reply = client.post("/api/v1/backtests", {"filter": filter})
        assert reply.status_code == 400 and wrong in reply.json()["detail"], reply.text


def test_a_router_is_told_where_calls_would_have_gone(nexus):
    client = nexus.admin
    runs = traffic(client)
    model = client.run(runs[0])["model"]
    targets = [{"provider": "one", "model": "m", "weight": 3}, {"provider": "two", "model": "m", "weight": 1}]
    router = client.post("/api/v1/backtests", {"router": {"models": [{"name": model, "targets": targets}]}}).json()["router"]
    assert router["routed"] >= 3
    assert sum(line["calls"] for line in router["moves"]) == router["routed"]


# ---- figures that are computed here, from what the provider reported ----

USAGES = [(1000, 200), (2500, 40), (333, 777), (90000, 5)]
PRICES = """
version: "1"
date: 2026-01-01
source: "a contract"
providers:
  - provider: fake
    models:
      - {model: tiny, input: "0.31", output: "1.27"}
"""


def priced_traffic(start, provider: FakeProvider):
    """One run for each usage, at a price of 0.15 and 0.60 dollars a million."""
    left = list(USAGES)
    provider.answer = lambda call: Text("done", usage=left.pop(0))
    price = {"input_usd_per_million_tokens": "0.15", "output_usd_per_million_tokens": "0.60"}
    nexus = start({"models": [{"name": "small", "targets": [{"provider": "fake", "model": "tiny", "price": price}]}]}, provider=provider)
    for number in range(len(USAGES)):
        assert nexus.admin.ask(f"question {number}", model="small").status == "completed"
    return nexus


def nanousd(per_million_input: float, per_million_output: float) -> int:
    """Each call rounded up by itself, as the ledger does: pico-dollars a token, to nano-dollars."""
    picos = [round(per_million_input * 1e6) * i + round(per_million_output * 1e6) * o for i, o in USAGES]
    return sum(-(-pico // 1000) for pico in picos)


def test_another_price_list_costs_what_the_tokens_say(start, provider: FakeProvider, tmp_path):
    nexus = priced_traffic(start, provider)
    report = nexus.admin.post("/api/v1/backtests", {"prices": PRICES})
    assert report.status_code == 200, report.text
    prices = report.json()["prices"]
    print(f"note: {json.dumps(prices)[:600]}")
    was, would_be = nanousd(0.15, 0.60), nanousd(0.31, 1.27)
    assert int(prices["was_nanousd"]) == was and int(prices["would_be_nanousd"]) == would_be
    assert int(prices["difference_nanousd"]) == would_be - was
    assert prices["priced"] == len(USAGES) and prices["unpriced"] == 0
    (tmp_path / "prices.yaml").write_text(PRICES)
    result = nexus.command("backtest", "--prices", str(tmp_path / "prices.yaml"), "--since", "1d", "--json")
    assert result.returncode == 0 and json.loads(result.stdout)["prices"]["would_be_nanousd"] == str(would_be)


def test_another_router_is_told_target_by_target_with_its_price(start, provider: FakeProvider, tmp_path):
    nexus = priced_traffic(start, provider)
    targets = [{"provider": "fake", "model": "tiny", "weight": 1, "priority": 1}]
    router = {"models": [{"name": "small", "targets": targets}]}
    report = nexus.admin.post("/api/v1/backtests", {"router": router, "prices": PRICES}).json()
    assert report["router"]["routed"] == len(USAGES)
    [move] = report["router"]["moves"]
    assert move["calls"] == len(USAGES)                              # one target: all of them go there
    print(f"note: {json.dumps(report['router'])[:400]}")
    assert int(report["prices"]["would_be_nanousd"]) == nanousd(0.31, 1.27)
    (tmp_path / "router.yaml").write_text(yaml.safe_dump(router))
    result = nexus.command("backtest", "--router", str(tmp_path / "router.yaml"), "--json")
    assert result.returncode == 0 and json.loads(result.stdout)["router"]["routed"] == len(USAGES), result.stdout + result.stderr


def test_another_filter_counts_what_a_plain_search_counts(start, provider: FakeProvider, tmp_path):
    questions = ["write to ada@example.com", "no address here", "bob@example.org and eve@example.net"]
    provider.answer = lambda call: Text(f"you said: {call.last_user_text}")
    nexus = start(provider=provider)
    for question in questions:
        assert nexus.admin.ask(question).status == "completed"
    texts = questions + [f"you said: {question}" for question in questions]
    with_address = sum("@" in text for text in texts)
    found = nexus.admin.post("/api/v1/backtests", {"filter": {"pii": "mask"}}).json()["filter"]
    assert (found["texts"], found["masked"], found["blocked"]) == (len(texts), with_address, 0)
    assert sum(line["findings"] for line in found["rules"]) == sum(text.count("@") for text in texts)
    (tmp_path / "filter.yaml").write_text(yaml.safe_dump({"pii": "block"}))
    result = nexus.command("backtest", "--filter", str(tmp_path / "filter.yaml"), "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads(result.stdout)["filter"]["blocked"] == with_address


def test_only_an_admin_may_and_nothing_to_try_is_an_error(nexus):
    assert nexus.user("alice").post("/api/v1/backtests", {"filter": {"pii": "mask"}}).status_code == 403
    assert nexus.admin.post("/api/v1/backtests", {}).status_code in (400, 422)
