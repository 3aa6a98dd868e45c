"""From nothing to a published tool: made, built, tested without a server, signed, published, called."""

import json
import shutil
import stat
import subprocess

import pytest
import yaml

from harness.server import run_command

LANGUAGES = {
    "c": "clang",
    "go": "go",
}


def has_compiler(language) -> str:
    """Empty when modules of the language can be built here; else why not."""
    program = shutil.which(LANGUAGES[language])
    if program is None:
        return f"no {LANGUAGES[language]} here"
    if language == "go":
        targets = subprocess.run([program, "tool", "dist", "list"], capture_output=True, text=True, check=False).stdout
        return "" if "wasip1/wasm" in targets else "this Go has no target wasip1"
    return ""


def need(language):
    reason = has_compiler(language)
    if reason:
        pytest.skip(f"SKIPPED: {reason}")


def tool(folder, *words, **more):
    return run_command(folder, "tool", *words, seconds=300, **more)


def go_cache() -> dict:
    """Go compiles its own library once for a target; HOME is the test's own, its cache need not be."""
    return {"GOCACHE": subprocess.run(["go", "env", "GOCACHE"], capture_output=True, text=True, check=True).stdout.strip()}


@pytest.fixture
def made(tmp_path):
    need("c")
    done = tool(tmp_path, "new", "word_count", "made")
    assert done.returncode == 0, done.stderr
    return tmp_path / "made"


def rewrite(file, before, after):
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def built(folder):
    done = tool(folder, "build")
    assert done.returncode == 0, done.stderr
    return done


def set_tests(folder, *tests):
    (folder / "tests.yaml").write_text(yaml.safe_dump({"tests": list(tests)}))


# ---- the whole way ----

@pytest.mark.parametrize("language", LANGUAGES)
def test_from_nothing_to_a_published_tool(nexus, tmp_path, language):
    need(language)
    name = f"authored_{language}"
    environment = go_cache() if language == "go" else {}
    done = tool(tmp_path, "new", name, "--language", language)
    assert done.returncode == 0 and "tool publish" in done.stdout, done.stderr
    folder = tmp_path / name
    assert all((folder / file).is_file() for file in ("manifest.yaml", "tool.build", "tests.yaml", "README.md", ".gitignore"))
    done = tool(folder, "build", "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    (module,) = json.loads(done.stdout)["modules"]
    assert module["bytes"] == (folder / f"{name}.wasm").stat().st_size and len(module["sha256"]) == 64
    done = tool(folder, "test")
    assert done.returncode == 0 and "4 passed, 0 failed" in done.stdout, done.stdout + done.stderr
    done = nexus.command("tool", "publish", str(folder), seconds=300, environment=environment)
    assert done.returncode == 0, done.stderr
    assert f"published {name} 0.1.0" in done.stdout and f"{nexus.url}/api/v1/tools/{name}" in done.stdout
    assert f"nexus tool invoke {name} '{{\"text\":\"to be or not to be\"}}'" in done.stdout
    reply = nexus.admin.invoke(name, {"text": "published within the minute"})
    assert reply.status_code == 200 and reply.json()["output"] == {"words": 4}, reply.text
    again = nexus.command("tool", "publish", str(folder), "--json", seconds=300, environment=environment)
    assert again.returncode == 0 and json.loads(again.stdout)["is_new"] is False, again.stdout + again.stderr


def test_a_signed_tool_and_what_a_dry_run_leaves(nexus, made):
    rewrite(made / "manifest.yaml", "name: word_count", "name: word_count_signed")
    key = made.parent / "author.key"
    assert tool(made, "keygen", str(key)).returncode == 0
    done = nexus.command("tool", "publish", str(made), "--sign", str(key), "--dry-run")
    assert done.returncode == 0 and "nothing was sent" in done.stdout, done.stderr
    assert nexus.admin.get("/api/v1/tools/word_count_signed").status_code == 404
    assert (made / "manifest.sig").is_file()
    rewrite(made / "manifest.yaml", "version: 0.1.0", "version: 0.1.1")      # now the signature is of something else
    done = nexus.command("tool", "publish", str(made))
    assert done.returncode != 0 and "sign again" in done.stderr
    done = nexus.command("tool", "publish", str(made), "--sign", str(key))
    assert done.returncode == 0 and "published word_count_signed 0.1.1" in done.stdout, done.stderr


def test_what_fails_its_tests_is_not_published(nexus, made):
    rewrite(made / "manifest.yaml", "name: word_count", "name: word_count_failing")
    rewrite(made / "tests.yaml", "output: {words: 6}", "output: {words: 7}")
    done = nexus.command("tool", "publish", str(made))
    assert done.returncode == 1 and "/words: expected 7, got 6" in done.stdout and "nothing was published" in done.stderr
    assert nexus.admin.get("/api/v1/tools/word_count_failing").status_code == 404


# ---- new ----

def test_nothing_of_the_authors_is_overwritten(made):
    before = (made / "tool.c").read_text()
    done = tool(made.parent, "new", "word_count", "made")
    assert done.returncode == 2 and "not empty" in done.stderr
    assert (made / "tool.c").read_text() == before


@pytest.mark.parametrize("words, told", [
    (("Word Count",), "lower-case letter"),
    (("word_count", "--language", "cobol"), "c, go or other"),
    (("word_count", "--category", "No Such"), "category"),
    (("../outside",), "lower-case letter"),
])
def test_a_name_that_cannot_be_is_refused_before_anything_is_made(tmp_path, words, told):
    done = tool(tmp_path, "new", *words)
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_another_language_brings_its_own_module(made, tmp_path):
    assert tool(tmp_path, "new", "other_count", "--language", "other").returncode == 0
    folder = tmp_path / "other_count"
    done = tool(folder, "build")
    assert done.returncode == 1 and "other_count.wasm" in done.stderr
    rewrite(folder / "tool.build", "build: []",
            "build: [[clang, --target=wasm32-wasi, -O1, -o, other_count.wasm, main.c]]")
    (folder / "main.c").write_text("""
#include <stdio.h>
#include <string.h>
int main(void)
{
    char text[4096];
    size_t len = fread(text, 1, sizeof text - 1, stdin);
    text[len] = 0;
    puts(strstr(text, "not to be") ? "{\\"words\\":6}" : strstr(text, "one") ? "{\\"words\\":3}" :
         "{\\"error\\":{\\"code\\":\\"invalid_input\\",\\"message\\":\\"give at least one word\\"}}");
    return 0;
}
""")
    built(folder)
    done = tool(folder, "test")
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout + done.stderr


# ---- build ----

def test_a_missing_compiler_is_named_with_the_way_to_get_it(made):
    done = tool(made, "build", environment={"PATH": "/nonexistent"})
    assert done.returncode == 1 and "no program clang" in done.stderr and "apt install clang" in done.stderr


def test_a_compilers_own_words_are_shown(made):
    (made / "tool.c").write_text("int broken(\n")
    done = tool(made, "build")
    assert done.returncode == 1 and "tool.c:1:" in done.stderr and "clang ended with status 1" in done.stderr


def test_words_of_a_command_meet_no_shell(made):
    (made / "tool.build").write_text('language: other\nbuild: [[echo, "$(touch made.txt); touch made.txt `touch made.txt`"]]\n')
    done = tool(made, "build")
    assert "$(touch made.txt)" in done.stderr and not (made / "made.txt").exists()


@pytest.mark.parametrize("text, told", [
    ("language: cobol", "tool.build:1"),
    ("language: other", "say how the module is made"),
    ("language: c\nbuild: clang -o x.wasm x.c", "tool.build:2"),
    ("language: c\nbuild: [clang]", "there is no shell"),
    ("language: c\nbuild: [[]]", "1 to 256 words"),
    ("language: c\nenvironment: [A]", "NAME: text"),
    ("shell: true", "unknown member shell"),
])
def test_a_broken_recipe_is_told_with_its_line(made, text, told):
    (made / "tool.build").write_text(text)
    done = tool(made, "build")
    assert done.returncode == 2 and told in done.stderr, done.stderr


def test_a_module_is_checked_like_the_server_does(made):
    rewrite(made / "tool.c", "int64_t words = 0;", "extern int elsewhere(void);\n    int64_t words = elsewhere();")
    rewrite(made / "tool.build", "language: c\n",
            "language: c\nbuild: [[clang, --target=wasm32-wasi, -mexec-model=reactor, -Isdk, '-Wl,--allow-undefined', -o, word_count.wasm, "
            "tool.c, sdk/nexus_tool.c, sdk/nexus_json.c]]\n")
    done = tool(made, "build")
    assert done.returncode == 2 and "elsewhere" in done.stderr and "does not have" in done.stderr, done.stderr
    (made / "tool.build").write_text("language: other\nbuild: []\n")
    (made / "word_count.wasm").write_bytes(b"no module")
    done = tool(made, "build")
    assert done.returncode == 2 and "compile" in done.stderr, done.stderr


# ---- test ----

def test_each_kind_of_expectation(made):
    built(made)
    set_tests(made,
              {"name": "part", "input": {"text": "a b"}, "contains": {}},
              {"name": "only that it works", "input": {"text": "a b"}},
              {"name": "a number by value", "input": {"text": "a b"}, "output": {"words": 2.0}},
              {"name": "wrong", "input": {"text": "a b"}, "output": {"words": 3, "more": True}},
              {"name": "should fail", "input": {"text": "a b"}, "error": {}},
              {"name": "fails otherwise", "input": {"text": " "}, "error": {"reason": "fuel_limit", "message": "no such words"}})
    done = tool(made, "test", "--json")
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    assert [test["ok"] for test in result["tests"]] == [True, True, True, False, False, False]
    assert (result["passed"], result["failed"]) == (3, 3)
    assert set(result["tests"][3]["differences"]) == {"/words: expected 3, got 2", "/more: expected true, and it is not there"}
    assert "expected to fail" in result["tests"][4]["differences"][0]
    assert len(result["tests"][5]["differences"]) == 2
    assert result["tests"][0]["fuel"] > 0 and result["tests"][0]["memory_bytes"] > 0
    done = tool(made, "test", "--case", "part")
    assert done.returncode == 0 and "1 passed, 0 failed" in done.stdout
    assert tool(made, "test", "--case", "no such").returncode == 2


@pytest.mark.parametrize("text, told", [
    ("tests: {}", "tests.yaml:1"),
    ("tests:\n  - input: {}", "needs a name"),
    ("tests:\n  - name: x", "needs `input`"),
    ("tests:\n  - {name: x, input: {}, output: {}, error: {}}", "one of"),
    ("tests:\n  - {name: x, input: {}, outputs: {}}", "no member outputs"),
    ("tests:\n  - {name: x, input: {}, error: {reason: tired}}", "no reason tired"),
    ("tests:\n  - {name: x, input: {}, host: [{call: clock}]}", "either `answer` or `error`"),
    ("tests: []", "has no test"),
])
def test_broken_tests_are_told_with_their_line(made, text, told):
    built(made)
    (made / "tests.yaml").write_text(text)
    done = tool(made, "test")
    assert done.returncode == 2 and told in done.stderr, done.stderr


def test_the_manifests_limits_hold(made):
    rewrite(made / "tool.c", "    int64_t words = 0;", """    int64_t words = 0;
    for (volatile int64_t i = text_equal(text, text_of("spin")) ? 1 : 0; i != 0; i++)
        continue;
    for (size_t i = 0; text_equal(text, text_of("grow")) && i < 64; i++)
        out_text(out_create(), (struct text){(char *) 1024, 1 << 20});""")
    built(made)
    set_tests(made,
              {"name": "fuel", "input": {"text": "spin"}, "error": {"reason": "fuel_limit"}},
              {"name": "memory", "input": {"text": "grow"}, "error": {}})
    done = tool(made, "test")
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


FETCHER = r"""
#include "nexus.h"

bool tool_run(const struct json *input, struct out *output, struct tool_error *e)
{
    struct text url, name, body;
    const struct json *answer;
    char bytes[64];
    size_t got;
    if (json_text(json_get(input, "file"), &name)) {
        if (!tool_file_read(name, 0, bytes, sizeof bytes, &got, e))
            return false;
        body = (struct text){bytes, got};
        tool_log(text_of("read a file"));
    } else {
        struct out *request = out_create();
        if (!json_text(json_get(input, "url"), &url))
            return tool_fail(e, "invalid_input", "give url or file");
        out_object(request);
        out_name(request, "url");
        out_text(request, url);
        out_end(request);
        if (!tool_host_call("http_request", request, &answer, e))
            return false;
        if (!json_text(json_get(answer, "body"), &body))
            return tool_fail(e, "unavailable", "no body");
    }
    out_object(output);
    out_name(output, "body");
    out_text(output, body);
    out_end(output);
    return true;
}
"""


@pytest.fixture
def fetcher(made):
    (made / "tool.c").write_text(FETCHER)
    manifest = yaml.safe_load((made / "manifest.yaml").read_text())
    manifest |= {"pure": False, "host_calls": ["http_request", "file_read", "file_size"],
                 "permissions": {"network": {"allowed_hosts": ["api.example.com"]}},
                 "input": {"type": "object"}, "output": {"type": "object"}}
    (made / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    built(made)
    return made


def test_the_host_answers_as_the_test_says(fetcher):
    url = "https://api.example.com/v1"
    set_tests(fetcher,
              {"name": "answered", "input": {"url": url}, "output": {"body": "hello"},
               "host": [{"call": "http_request", "request": {"url": url}, "answer": {"status": 200, "headers": {}, "body": "hello"}}]},
              {"name": "down", "input": {"url": url}, "error": {"reason": "tool_failed", "message": "no route"},
               "host": [{"call": "http_request", "error": {"code": "unavailable", "message": "no route"}}]},
              {"name": "elsewhere", "input": {"url": "https://evil.example.net/"}, "error": {"reason": "egress_blocked"}},
              {"name": "a file", "input": {"file": "a.txt"}, "files": {"a.txt": "from a file"}, "output": {"body": "from a file"},
               "log": "read a file"},
              {"name": "no such file", "input": {"file": "b.txt"}, "error": {"message": "no file"}})
    done = tool(fetcher, "test")
    assert done.returncode == 0 and "5 passed, 0 failed" in done.stdout, done.stdout + done.stderr
    set_tests(fetcher,
              {"name": "not told", "input": {"url": url}, "error": {}},
              {"name": "not made", "input": {"file": "a.txt"}, "files": {"a.txt": "x"},
               "host": [{"call": "http_request", "answer": {}}]})
    done = tool(fetcher, "test")
    assert done.returncode == 1 and "says no answer for" in done.stdout and "host call 1 (http_request) was not made" in done.stdout


def test_no_trace_is_left_behind(made, tmp_path):
    temporary = tmp_path / "t"
    temporary.mkdir()
    built(made)
    assert tool(made, "test", environment={"TMPDIR": str(temporary)}).returncode == 0
    assert not any(temporary.iterdir())
    assert stat.S_IMODE((made / "tool.c").stat().st_mode) == 0o644
