"""Tools come, change and go: installed by every way, side by side, as a canary, rolled back, signed, found among a thousand, narrowed."""

import io
import json
import shutil
import sqlite3
import tarfile
import threading
import uuid

import pytest

from harness.client import problem
from harness.provider import Text, ToolCalls
from harness.server import run_command, toolbox

WORDS = {"text": "to be or not to be"}


def manifest(name, version, description="Counts the words of a text.", more=""):
    return f"""name: {name}
version: {version}
category: text_processing
abi: wasi-command
module: m.wasm
pure: true
idempotent: true
timeout: 1s
limits: {{fuel: 100000000, memory: 4MB, time: 1s, output: 4KB}}
permissions: {{}}
description: {json.dumps(description)}
input: {{type: object, required: [text], properties: {{text: {{type: string}}}}}}
output: {{type: object, required: [words], properties: {{words: {{type: integer}}}}}}
{more}"""


@pytest.fixture(scope="session")
def module() -> bytes:
    file = toolbox() / "wordcount/wordcount.wasm"
    if not file.is_file():
        pytest.skip("no example tool was built")
    return file.read_bytes()


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def package(module, name, version, **more) -> bytes:
    return archive({"manifest.yaml": manifest(name, version, **more).encode(), "m.wasm": module})


def install(client, content: bytes, scope="tenant"):
    return client.post(f"/api/v1/tools?scope={scope}", content=content, headers={"Content-Type": "application/octet-stream"})


def folder(path, module, name, version):
    path.mkdir()
    (path / "manifest.yaml").write_text(manifest(name, version))
    (path / "m.wasm").write_bytes(module)
    return path


def version_of(client, name, **more):
    reply = client.invoke(name, WORDS, **more)
    assert reply.status_code == 200, reply.text
    assert reply.json()["output"] == {"words": 6}
    return reply.json()["tool_version"]


def state(client, name, **change):
    reply = client.http.request("PATCH", f"/api/v1/tools/{name}/state", json=change)
    assert reply.status_code == 200, reply.text
    return reply.json()


# ---- ways in, ways out ----

def test_a_tool_is_installed_from_a_folder_a_file_and_by_api(nexus, module, tmp_path):
    place = folder(tmp_path / "one", module, "by_folder", "1.0.0")
    done = nexus.command("tool", "install", str(place), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["is_new"] is True
    folder(tmp_path / "two", module, "by_file", "1.0.0")
    assert nexus.command("tool", "pack", str(tmp_path / "two"), str(tmp_path / "t.nexus-tool")).returncode == 0
    assert nexus.command("tool", "install", str(tmp_path / "t.nexus-tool")).returncode == 0
    reply = install(nexus.admin, package(module, "by_api", "1.0.0"))
    assert reply.status_code == 201 and reply.headers["ETag"] == f'"{reply.json()["seal"]}"', reply.text
    for name in ("by_folder", "by_file", "by_api"):
        assert version_of(nexus.admin, name) == "1.0.0"
        shown = nexus.admin.get(f"/api/v1/tools/{name}").json()
        assert shown["source"] == "installed" and shown["owner"] == "tenant"
    assert install(nexus.admin, package(module, "by_api", "1.0.0")).status_code == 200        # the very same
    other = install(nexus.admin, package(module, "by_api", "1.0.0", description="Something else."))
    assert other.status_code == 409 and problem(other) == "conflict"
    assert nexus.command("tool", "remove", "by_api@1.0.0").returncode == 0
    assert nexus.admin.invoke("by_api", WORDS).status_code == 404


def test_only_an_admin_installs_and_only_with_the_scope_for_all(nexus, module):
    user = nexus.user("uma")
    assert install(user, package(module, "sneaky", "1.0.0")).status_code == 403
    assert install(nexus.admin, package(module, "for_all", "1.0.0"), "platform").status_code == 201
    assert user.get("/api/v1/tools/for_all").json()["owner"] == "platform"
    tenant_only = nexus.user("tom", "admin")
    refused = install(tenant_only, package(module, "for_none", "1.0.0"), "platform")
    assert refused.status_code == 403 and "platform" in refused.json()["detail"]
    taken = install(tenant_only, package(module, "text_processing", "9.0.0"))
    assert taken.status_code == 409 and "platform" in taken.json()["detail"]


@pytest.mark.parametrize("files, words", [
    ({"manifest.yaml": b"name: x\n"}, "lacks"),
    ({"m.wasm": b"x"}, "no manifest.yaml"),
    ({"manifest.yaml": manifest("broken", "1.0.0").encode()}, "lacks"),
    ({"manifest.yaml": manifest("broken", "1.0.0").encode(), "m.wasm": b"\0asm\1\0\0\0" + b"\xff" * 64}, "broken 1.0.0"),
    ({"manifest.yaml": manifest("broken", "1.0.0").encode(), "m.wasm": b"no wasm"}, "broken 1.0.0"),
    ({"manifest.yaml": manifest("broken", "1.0.0").encode(), "m.wasm": b"\0asm\1\0\0\0", "x.sh": b""}, "x.sh"),
    ({"manifest.yaml": manifest("broken", "1.0.0").encode(), "../m.wasm": b"x"}, "names are bare"),
    ({"manifest.yaml": manifest("broken", "1.0.0", more="flavour: sweet").encode(), "m.wasm": b"x"}, "flavour"),
])
def test_a_broken_package_is_refused_with_one_clear_error(nexus, files, words):
    reply = install(nexus.admin, archive(files))
    assert 400 <= reply.status_code < 500, reply.text
    assert words in reply.json()["detail"]
    assert nexus.admin.get("/api/v1/tools/broken").status_code == 404
    assert not any((nexus.data / "tools/.incoming").iterdir())


def test_a_module_that_imports_what_does_not_exist_is_refused(nexus):
    # (module (import "nexus" "launch" (func)) (memory (export "memory") 1))
    wasm = bytes.fromhex("0061736d01000000010401600000020f01056e65787573066c61756e636800000503010001070a01066d656d6f72790200")
    reply = install(nexus.admin, archive({"manifest.yaml": manifest("launcher", "1.0.0").encode(), "m.wasm": wasm}))
    assert reply.status_code in (400, 422) and "launch" in reply.json()["detail"], reply.text
    for junk in (b"", b"x" * 5000, b"\0" * 2048):
        assert install(nexus.admin, junk).status_code in (400, 422)


def test_references_in_a_package_stay_text(nexus, module):
    reply = install(nexus.admin, package(module, "secretive", "1.0.0", description="Reads ${env:HOME} and ${file:/etc/passwd}."))
    assert reply.status_code == 201, reply.text
    assert nexus.admin.get("/api/v1/tools/secretive").json()["description"] == "Reads ${env:HOME} and ${file:/etc/passwd}."


# ---- versions ----

def test_versions_stand_side_by_side_and_one_rolls_back(nexus, module):
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        assert install(nexus.admin, package(module, "versions", version)).status_code == 201
    admin = nexus.admin
    assert version_of(admin, "versions") == "2.0.0"
    assert version_of(admin, "versions", version="^1.0") == "1.1.0"
    assert nexus.command("tool", "use", "versions@1.0.0").returncode == 0
    assert version_of(admin, "versions") == "1.0.0"
    assert nexus.command("tool", "use", "versions").returncode == 0
    assert version_of(admin, "versions") == "2.0.0"
    assert nexus.command("tool", "deprecate", "versions@2.0.0", "it miscounts; use 1.1").returncode == 0
    assert version_of(admin, "versions") == "1.1.0"
    assert version_of(admin, "versions", version="2.0.0") == "2.0.0"
    assert admin.get("/api/v1/tools/versions?version=2.0.0").json()["deprecated"] == "it miscounts; use 1.1"
    assert nexus.command("tool", "restore", "versions@2.0.0").returncode == 0
    assert version_of(admin, "versions") == "2.0.0"


def test_two_writers_meet_and_the_second_looks_again(nexus, module):
    install(nexus.admin, package(module, "contended", "1.0.0"))
    path = "/api/v1/tools/contended/state"
    tag = nexus.admin.get(path).headers["ETag"]
    first = nexus.admin.http.request("PATCH", path, json={"current": "1.0.0"}, headers={"If-Match": tag})
    second = nexus.admin.http.request("PATCH", path, json={"current": None}, headers={"If-Match": tag})
    assert first.status_code == 200 and second.status_code == 412 and problem(second) == "precondition_failed"
    assert first.headers["ETag"] != tag


def test_a_canary_gets_its_share_of_the_sessions_and_each_keeps_its_version(nexus, module):
    for version in ("1.0.0", "2.0.0"):
        install(nexus.admin, package(module, "canary", version))
    assert nexus.command("tool", "canary", "canary@2.0.0", "30").returncode == 0
    got = []
    for _ in range(60):
        session = nexus.admin.open_session()
        versions = {version_of(nexus.admin, "canary", session_id=session) for _ in range(2)}
        assert len(versions) == 1
        got.append(versions.pop())
    assert 5 <= got.count("2.0.0") <= 33, got.count("2.0.0")
    assert nexus.command("tool", "canary", "canary@2.0.0", "0").returncode == 0
    assert version_of(nexus.admin, "canary") == "2.0.0"


def test_what_was_decided_survives_a_restart_and_a_reload(start, module):
    served = start()
    for version in ("1.0.0", "2.0.0"):
        assert install(served.admin, package(module, "kept", version)).status_code == 201
    state(served.admin, "kept", current="1.0.0", deprecated={"2.0.0": "too new"})
    served.terminate()
    leftover = served.data / "tools/platform/ghost/1.0.0"
    leftover.mkdir(parents=True)
    (leftover / "m.wasm").write_bytes(b"x")
    served.start()
    assert not leftover.exists()
    assert version_of(served.admin, "kept") == "1.0.0"
    assert served.admin.get("/api/v1/tools/kept?version=2.0.0").json()["deprecated"] == "too new"
    served.reload()
    assert version_of(served.admin, "kept") == "1.0.0"
    served.terminate()
    place = next(served.data.glob("tools/*/kept/1.0.0"))
    (place / "m.wasm").write_bytes(module + b"\0")
    served.start()
    assert served.admin.get("/api/v1/tools/kept?version=1.0.0").status_code == 404         # tampered with
    assert version_of(served.admin, "kept", version="2.0.0") == "2.0.0"


# ---- trust ----

def test_signatures_where_they_are_required(start_cold, module, tmp_path):
    tools = {"require_signature": True, "trusted_keys": []}
    for name in ("author", "stranger"):
        made = run_command(tmp_path, "tool", "keygen", str(tmp_path / name))
        assert made.returncode == 0, made.stderr
        if name == "author":
            tools["trusted_keys"].append({"name": "author", "public_key": made.stdout.split()[2]})
    assert (tmp_path / "author").stat().st_mode & 0o777 == 0o600
    served = start_cold({"tools": tools})
    place = folder(tmp_path / "tool", module, "signed", "1.0.0")
    unsigned = served.command("tool", "install", str(place))
    assert unsigned.returncode == 3 and "not signed" in unsigned.stderr, unsigned.stderr
    assert run_command(tmp_path, "tool", "sign", str(place), "--key", str(tmp_path / "stranger")).returncode == 0
    strange = served.command("tool", "install", str(place))
    assert strange.returncode == 3 and "trusted_keys" in strange.stderr
    assert run_command(tmp_path, "tool", "sign", str(place), "--key", str(tmp_path / "author")).returncode == 0
    (place / "m.wasm").write_bytes(module + b"\0")
    tampered = served.command("tool", "install", str(place))
    assert tampered.returncode == 3 and "changed after it was signed" in tampered.stderr
    (place / "m.wasm").write_bytes(module)
    assert served.command("tool", "install", str(place)).returncode == 0
    assert served.admin.get("/api/v1/tools/signed").json()["signer"] == "author"
    assert version_of(served.admin, "signed") == "1.0.0"


# ---- while it is used ----

def test_a_tool_is_replaced_under_load_and_no_call_notices(nexus, module):
    for version in ("1.0.0", "1.0.1"):
        install(nexus.admin, package(module, "hot", version))
    over, failures, calls = threading.Event(), [], [0]

    def use():
        client = nexus.client(nexus.admin_key)
        while not over.is_set():
            reply = client.invoke("hot", WORDS)
            calls[0] += 1
            if reply.status_code != 200 or reply.json()["output"] != {"words": 6}:
                failures.append(reply.text)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        assert nexus.admin.delete("/api/v1/tools/hot?version=1.0.1").status_code == 204
        assert install(nexus.admin, package(module, "hot", "1.0.1")).status_code == 201
    over.set()
    for thread in threads:
        thread.join()
    assert calls[0] > 20 and not failures, failures[:3]


# ---- tenants ----

def second_tenant(served, name="zoe") -> str:
    """A key of an administrator of another tenant: there is no API yet that makes tenants."""
    key = served.admin.create_key(user_id=name, role="admin")
    served.terminate()
    other = str(uuid.uuid4())
    with sqlite3.connect(served.data / "nexus.db") as database:
        database.execute("INSERT INTO tenants (tenant_id, id, name, created_at) VALUES (?, ?, 'other', 0)", (other, other))
        database.execute("UPDATE api_keys SET tenant_id = ? WHERE id = ?", (other, key["id"]))
    database.close()
    served.start()
    return key["key"]


def test_two_tenants_see_their_own_tools_and_decide_for_themselves(start, module):
    served = start()
    zoe = served.client(second_tenant(served))
    assert install(served.admin, package(module, "mine", "1.0.0")).status_code == 201
    assert install(zoe, package(module, "mine", "2.0.0")).status_code == 201
    assert install(served.admin, package(module, "ours", "1.0.0"), "platform").status_code == 201
    assert version_of(served.admin, "mine") == "1.0.0" and version_of(zoe, "mine") == "2.0.0"
    assert zoe.get("/api/v1/tools/mine?version=1.0.0").status_code == 404
    assert zoe.delete("/api/v1/tools/mine?version=1.0.0").status_code == 404
    assert zoe.delete("/api/v1/tools/ours?version=1.0.0").status_code == 404
    assert zoe.http.request("PATCH", "/api/v1/tools/ours/state", json={"deprecated": {"1.0.0": "x"}}).status_code == 404
    assert {tool["version"] for tool in zoe.get("/api/v1/tools").json()["items"] if tool["name"] == "mine"} == {"2.0.0"}
    state(zoe, "ours", hidden=True)
    assert zoe.get("/api/v1/tools/ours").status_code == 404 and version_of(served.admin, "ours") == "1.0.0"
    state(zoe, "ours", hidden=False)
    own = served.admin.get("/api/v1/me").json()["tenant_id"]
    limited = served.admin.http.request("PATCH", "/api/v1/tools/ours/state?scope=platform", json={"visible_to": [own]})
    assert limited.status_code == 200, limited.text
    assert zoe.get("/api/v1/tools/ours").status_code == 404 and version_of(served.admin, "ours") == "1.0.0"
    assert zoe.get("/api/v1/tools?search=ours").json()["items"] == []


# ---- permissions ----

def test_a_tenant_narrows_and_explain_says_who_decided(start, tmp_path):
    config = {"tools": {"http_request": {"permissions": {"network": {"allowed_hosts": ["*.example.com", "example.org"], "timeout": "20s"}}}},
              "agents": [{"name": "reader", "tools": [{"name": "http_request", "permissions": {"network": {"timeout": "3s"}}}]}]}
    served = start(config)
    put = served.admin.put("/api/v1/tools/http_request/permissions", content=b"network:\n  allowed_hosts: [api.example.com, evil.net]\n")
    assert put.status_code == 200, put.text
    explained = served.admin.get("/api/v1/tools/http_request/explain?agent=reader").json()
    values = {value["name"]: value for value in explained["values"]}
    hosts = values["network.allowed_hosts"]
    assert hosts["value"] == ["api.example.com"] and hosts["decided_by"] == "tenant"
    assert hosts["levels"]["configuration"] == ["*.example.com", "example.org"]
    assert values["network.timeout"]["value"] == "3000ms" and values["network.timeout"]["decided_by"] == "agent"
    assert explained["policy"]["verdict"] in ("allow", "needs_approval") and explained["policy"]["rule"]
    shown = served.command("tool", "explain", "http_request", "--agent", "reader")
    assert shown.returncode == 0 and "tenant" in shown.stdout and "api.example.com" in shown.stdout, shown.stdout
    denied = served.admin.invoke("http_request", {"url": "http://example.org/"})
    assert denied.status_code == 403, denied.text                                   # the executor got the narrowed ones
    wide = served.admin.put("/api/v1/tools/http_request/permissions", content=b"network:\n  allowed_ips: ['127.0.0.1']\n")
    assert wide.status_code == 422 and ":2" in wide.json()["detail"], wide.text
    assert served.admin.put("/api/v1/tools/http_request/permissions", content=b"{}").status_code == 200
    values = {v["name"]: v for v in served.admin.get("/api/v1/tools/http_request/explain").json()["values"]}
    assert values["network.allowed_hosts"]["decided_by"] == "configuration"


# ---- a thousand tools ----

VERBS = ["convert", "fetch", "sort", "count", "translate", "rotate", "parse", "render", "merge", "validate"]
THINGS = ["invoice", "image", "calendar", "tree", "address", "ledger", "route", "recipe", "sensor", "contract"]
PLACES = ["hospital", "harbour", "school", "bakery", "museum", "airport", "farm", "library", "factory", "theatre"]
ASKED = ["How do I {verb} the {thing} of the {place}?", "please {verb} my {place} {thing}", "{verb}ing {thing}s, {place}",
         "something to {verb} a {thing} at the {place} quickly", "{place} {thing} {verb}"]


@pytest.fixture(scope="module")
def thousand(tmp_path_factory, compiled_tools, module):
    """A server with a thousand more tools in its folder, and a provider that is told what to answer."""
    from harness.provider import FakeProvider
    from harness.starter import Starter
    tmp_path = tmp_path_factory.mktemp("thousand")
    many = tmp_path / "tools"
    shutil.copytree(toolbox() / "text_processing", many / "text_processing")
    for verb in VERBS:
        for thing in THINGS:
            for place in PLACES:
                place_ = many / f"{verb}_{thing}_{place}"
                place_.mkdir(parents=True)
                (place_ / "m.wasm").write_bytes(module)
                text = f"Will {verb} the {thing} of a {place}, with care and without asking twice."
                (place_ / "manifest.yaml").write_text(manifest(f"{verb}_{thing}_{place}", "1.0.0", text))
    provider = FakeProvider()
    starter = Starter(tmp_path, compiled_tools)
    config = {"tools": {"dir": str(many)}, "agents": [{"name": "all", "tools": [{"name": "text_processing", "pinned": True}, "*"]}]}
    yield starter(config, provider=provider), provider
    starter.finish()
    provider.close()


def test_fifty_questions_find_their_tool_among_a_thousand(thousand):
    served, _ = thousand
    assert len(served.admin.get("/api/v1/tools").json()["items"]) == 1001
    missed = []
    for i in range(50):
        verb, thing, place = VERBS[i % 10], THINGS[(i * 3) % 10], PLACES[(i * 7 + i // 10) % 10]
        asked = ASKED[i % 5].format(verb=verb, thing=thing, place=place)
        found = served.admin.get("/api/v1/tools", params={"search": asked}).json()["items"]
        assert len(found) <= 10
        if f"{verb}_{thing}_{place}" not in [tool["name"] for tool in found]:
            missed.append(asked)
    assert not missed, missed
    shown = served.command("tool", "search", "merge", "contract", "theatre")
    assert shown.returncode == 0 and "merge the contract of a theatre" in shown.stdout.splitlines()[1]


def test_a_model_gets_the_tools_that_fit_and_finds_others(thousand):
    served, provider = thousand
    provider.script.extend([ToolCalls([("tool_search", {"query": "rotate the tree of a farm"})]),
                  ToolCalls([("rotate_tree_farm", WORDS)]), Text("done")])
    ended = served.admin.ask("Please merge the contract of the theatre.",
                             session=served.admin.open_session(agent="all"))
    assert ended.status == "completed", ended.json()
    offered = [[tool["function"]["name"] for tool in call.body["tools"]] for call in provider.calls[-3:]]
    assert "merge_contract_theatre" in offered[0] and "tool_search" in offered[0] and "text_processing" in offered[0]
    assert len(offered[0]) <= 12 and "rotate_tree_farm" not in offered[0]
    assert "rotate_tree_farm" in offered[1] and "rotate_tree_farm" in offered[2]
    assert ended.tool_outputs("rotate_tree_farm") == [{"words": 6}]
