"""text_processing, time, http_request, and the wasi-command example; and that manifests fit their tools."""

import json
import subprocess

import pytest
import yaml
from host import BUILD, MIB, Failure, Host


def text(operation, value="", **more):
    return Host(memory=32 * MIB).run("text_processing", {"operation": operation, "text": value, **more})


@pytest.mark.parametrize(
    "operation, value, more, want",
    [
        ("upper", "straße é", {}, "STRASSE É"),
        ("lower", "ÀB", {}, "àb"),
        ("title", "o'neil's ÉCOLE", {}, "O'neil's École"),
        ("trim", " \n x y\u3000", {}, "x y"),
        ("trim", " x ", {"side": "end"}, " x"),
        ("truncate", "hello world", {"length": 6}, "hello…"),
        ("truncate", "héllo", {"length": 5}, "héllo"),
        ("slugify", "Über Straße: l'été & Ærø №1!", {}, "uber-strasse-lete-aero-1"),
        ("replace", "a.b.c", {"pattern": ".", "replacement": "-"}, "a-b-c"),
        ("replace", "John Smith", {"pattern": r"(\w+) (\w+)", "replacement": "$2 $1 $&$$", "regex": True}, "Smith John John Smith$"),
        ("replace", "aAa", {"pattern": "A", "replacement": "x", "ignore_case": True, "limit": 2}, "xxa"),
        ("replace", "😀x", {"pattern": ".", "replacement": "[$&]", "regex": True}, "[😀][x]"),
        ("join", "", {"items": ["a", "b"], "separator": "-"}, "a-b"),
        ("dedupe_lines", "a\nb\na\nA", {"ignore_case": True}, "a\nb"),
        ("sort_lines", "10\n9\n2", {"numeric": True, "order": "desc"}, "10\n9\n2"),
        ("base64_encode", "héllo", {}, "aMOpbGxv"),
        ("base64_decode", "aMOpbGxv", {}, "héllo"),
        ("json_format", '{"a":[1]}', {"indent": 0}, '{"a":[1]}'),
    ],
)
def test_texts(operation, value, more, want):
    assert text(operation, value, **more)["text"] == want


def test_counts():
    assert text("count", "Hello wörld. How are you?\nFine")["counts"] == {
        "characters": 30, "bytes": 31, "words": 6, "lines": 2, "sentences": 3,
    }


def test_matches_have_character_indexes_and_groups():
    answer = text("match", "a😀 x12 é7", pattern=r"([a-zé])(\d+)")
    assert answer["matches"] == [
        {"text": "x12", "index": 3, "groups": ["x", "12"]},
        {"text": "é7", "index": 7, "groups": ["é", "7"]},
    ]
    assert [m["text"] for m in text("split", "a1b22c", pattern=r"\d+", regex=True)["matches"]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "kind, value, want",
    [
        ("emails", "me@x.co, bad@, a.b+c@sub.example.org.", ["me@x.co", "a.b+c@sub.example.org"]),
        ("urls", "see https://a.b/c?d=1. (http://x.y/z)", ["https://a.b/c?d=1", "http://x.y/z"]),
        ("numbers", "1,234.5 and -7, x9 3e5", ["1,234.5", "-7", "3e5"]),
        ("dates", "2024-01-02, Jan 5, 2021 and 6 March 2022", ["2024-01-02", "Jan 5, 2021", "6 March 2022"]),
    ],
)
def test_extract(kind, value, want):
    assert [m["text"] for m in text("extract", value, kind=kind)["matches"]] == want


def test_diff_is_unified_and_applies(tmp_path):
    old = "".join(f"line {i}\n" for i in range(40))
    new = old.replace("line 3\n", "").replace("line 20\n", "line 20\nmore\n").replace("line 39", "end")
    answer = text("diff", old, other=new)
    assert answer["counts"] == {"added": 2, "removed": 2}
    (tmp_path / "f").write_text(old)
    patch = "--- f\n+++ f\n" + answer["text"]
    subprocess.run(["patch", "-s", "-p0"], input=patch, text=True, cwd=tmp_path, check=True)
    assert (tmp_path / "f").read_text() == new


@pytest.mark.parametrize(
    "request_, message",
    [
        ({"operation": "nope", "text": ""}, "unknown operation"),
        ({"operation": "upper"}, '"text" is missing'),
        ({"operation": "match", "text": "a" * 40 + "b", "pattern": "(a+)+$"}, "too many steps"),
        ({"operation": "match", "text": "x", "pattern": "("}, "not a regular expression"),
        ({"operation": "json_format", "text": '{"a":\n[1,2}'}, "line 2, column 5"),
        ({"operation": "base64_decode", "text": "a*"}, "not base64"),
    ],
)
def test_text_errors(request_, message):
    with pytest.raises(Failure) as failure:
        Host(memory=32 * MIB).run("text_processing", request_)
    assert message in failure.value.message


CLOCK = {"clock": lambda request: {"ok": {"unix_us": 1711893900123456}}}


@pytest.mark.parametrize(
    "request_, key, want",
    [
        ({}, "time", "2024-03-31T14:05:00.123456Z"),
        ({"operation": "now", "offset": "+05:30"}, "time", "2024-03-31T19:35:00.123456+05:30"),
        ({"operation": "parse", "time": "2024-02-29"}, "weekday", "Thursday"),
        ({"operation": "parse", "time": "12/31/2024", "date_order": "mdy"}, "iso_week", "2025-W01"),
        ({"operation": "parse", "time": 0}, "time", "1970-01-01T00:00:00Z"),
        ({"operation": "convert", "time": "2024-03-31T23:30:00-05:00", "offset": "Z"}, "time", "2024-04-01T04:30:00Z"),
        ({"operation": "add", "time": "2024-01-31", "months": 1}, "date", "2024-02-29"),
        ({"operation": "add", "time": "2024-03-01", "days": -1}, "date", "2024-02-29"),
        ({"operation": "diff", "time": "2024-01-01", "until": "2024-03-01T12:00:00Z"}, "seconds", 5227200),
    ],
)
def test_time(request_, key, want):
    assert Host(calls=CLOCK, memory=8 * MIB).run("time", request_)[key] == want


def test_time_errors():
    for request, message in [
        ({"operation": "convert", "time": "2024-01-01", "offset": "Europe/Berlin"}, "no time zone database"),
        ({"operation": "parse", "time": "2023-02-29"}, "not a date"),
        ({"operation": "add", "time": "9999-12-31", "days": 1}, "outside the years"),
    ]:
        with pytest.raises(Failure, match=message):
            Host().run("time", request)
    with pytest.raises(Failure) as failure:
        Host().run("time", {})
    assert failure.value.code == "denied"


def http(request, answer=None):
    sent = []
    answer = answer or {"ok": {"status": 204, "headers": {"a": "b"}, "body": "", "truncated": True, "secret": 1}}
    host = Host(calls={"http_request": lambda r: sent.append(r) or answer})
    return host.run("http_request", request), sent[0]


def test_http_request_passes_on_what_it_checked():
    answer, sent = http({"url": "https://a.example/x", "method": "post", "headers": {"X-A": "1"}, "body": {"a": 1}})
    assert answer == {"status": 204, "headers": {"a": "b"}, "body": "", "truncated": True}
    assert sent == {
        "method": "POST",
        "url": "https://a.example/x",
        "headers": {"X-A": "1", "Content-Type": "application/json"},
        "body": '{"a":1}',
    }


@pytest.mark.parametrize(
    "request_",
    [
        {"url": "file:///etc/passwd"},
        {"url": "https://user:pw@a.example/"},
        {"url": "https://a.example/x y"},
        {"url": "https://a.example/", "method": "TRACE"},
        {"url": "https://a.example/", "body": "x"},
        {"url": "https://a.example/", "headers": {"HOST": "b"}},
        {"url": "https://a.example/", "headers": {"Cookie": "b"}},
        {"url": "https://a.example/", "headers": {"authorization": "b"}},
        {"url": "https://a.example/", "headers": {"X": "a\r\nHost: b"}},
        {"url": "https://a.example/", "headers": {"X Y": "a"}},
        {},
    ],
)
def test_http_request_refuses(request_):
    with pytest.raises(Failure) as failure:
        http(request_)
    assert failure.value.code == "invalid_input"


def test_http_request_hands_on_the_hosts_refusal():
    with pytest.raises(Failure) as failure:
        http({"url": "https://a.example/"}, {"error": {"code": "denied", "message": "host a.example is not allowed"}})
    assert (failure.value.code, failure.value.message) == ("denied", "host a.example is not allowed")


def test_wordcount_speaks_json_on_stdin_and_stdout(tmp_path):
    import wasmtime

    engine = wasmtime.Engine()
    module = wasmtime.Module.from_file(engine, str(BUILD / "wordcount" / "wordcount.wasm"))
    (tmp_path / "in").write_text(json.dumps({"text": "one two\nthree"}))
    wasi = wasmtime.WasiConfig()
    wasi.stdin_file, wasi.stdout_file = str(tmp_path / "in"), str(tmp_path / "out")
    store = wasmtime.Store(engine)
    store.set_wasi(wasi)
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    linker.instantiate(store, module).exports(store)["_start"](store)
    assert json.loads((tmp_path / "out").read_text()) == {"words": 3}


@pytest.mark.parametrize("junk", [b"", b"[]", b"{", b'{"operation": "\xff"}', b"null", b'{"a":' * 5000])
@pytest.mark.parametrize("tool", ["text_processing", "data_analysis", "time", "code_execution", "http_request"])
def test_junk_is_answered_with_an_error(tool, junk):
    answer = json.loads(Host().run_raw(tool, junk))
    assert answer["error"]["code"] == "invalid_input"


def test_manifests_are_complete_and_their_schemas_valid():
    jsonschema = pytest.importorskip("jsonschema")
    wanted = {"name", "version", "category", "description", "author", "pure", "idempotent", "timeout",
              "limits", "host_calls", "permissions", "input", "output"}
    manifests = sorted(BUILD.glob("*/manifest.yaml"))
    assert len(manifests) >= 6
    for path in manifests:
        manifest = yaml.safe_load(path.read_text())
        modules = manifest.get("modules", {"only": manifest})
        assert set(manifest) - {"labels"} == wanted | ({"modules"} if "modules" in manifest else {"abi", "module"}), path
        assert all((path.parent / module["module"]).is_file() for value, module in modules.items() if value != "by")
        assert path.parent.name == manifest["name"]
        for schema in ("input", "output"):
            jsonschema.Draft202012Validator.check_schema(manifest[schema])
