"""JavaScript in the sandbox: results, output, errors, and what a hostile script gets."""

import pytest
from host import MIB, Failure, Host


def run(code, **more):
    return Host(memory=128 * MIB).run("code_execution", {"language": "javascript", "code": code, **more})


@pytest.mark.parametrize(
    "code",
    [
        "let result = 6 * 7",
        "const result = 42",
        "var result = 42",
        "result = 42",
        "globalThis.result = 42",
        "const result = await Promise.resolve(42)",
        "var result; Promise.resolve(42).then(v => { result = v })",
        "var result; setTimeout(() => { result = 42 }, 3600000)",
        "let result = 0; const t = setInterval(() => { if ((result += 21) === 42) clearInterval(t) }, 5)",
    ],
)
def test_every_way_to_give_a_result(code):
    assert run(code) == {"result": 42, "stdout": "", "stderr": "", "exit_code": 0}


def test_no_result_is_no_member():
    assert "result" not in run("let x = 1")
    assert run("let result = null")["result"] is None


def test_input_and_files_go_in_and_changed_files_come_out():
    answer = run(
        "files.added = input.a.join(); files.changed += '!'; const result = Object.keys(files)",
        input={"a": [1, "é😀"]},
        files={"same": "s", "changed": "c"},
    )
    assert answer["files"] == {"added": "1,é😀", "changed": "c!"}
    assert answer["result"] == ["same", "changed", "added"]


def test_console():
    answer = run("console.log('a', 1, {b: [2]}, null, undefined); console.warn('w'); console.error(new Error('bad'))")
    assert answer["stdout"] == 'a 1 {"b":[2]} null undefined\n'
    assert answer["stderr"].startswith("w\nError: bad\n    at <eval> (code.js:1:")
    assert answer["exit_code"] == 0


@pytest.mark.parametrize(
    "code, message, line",
    [
        ("let a = 1;\n\nnope();", "ReferenceError: nope is not defined", "code.js:3:1"),
        ("function f() {\n  throw new TypeError('x');\n}\nf();", "TypeError: x", "f (code.js:2:"),
        ("let a = ;", "SyntaxError", "code.js:1:"),
        ("await Promise.reject(new Error('later'))", "Error: later", "code.js:1:"),
        ("Promise.reject(new Error('lost'))", "Error: lost", "code.js:1:"),
        ("setTimeout(() => { throw new Error('timer') }, 1)", "Error: timer", "code.js:1:"),
    ],
)
def test_uncaught_exceptions_name_the_users_lines(code, message, line):
    answer = run(code)
    assert answer["exit_code"] == 1 and "result" not in answer
    assert message in answer["stderr"] and line in answer["stderr"]


def test_output_before_an_exception_is_kept():
    answer = run("console.log('before'); throw 1")
    assert answer["stdout"] == "before\n" and answer["exit_code"] == 1


def test_a_promise_that_nothing_settles():
    assert "nothing can settle" in run("await new Promise(() => {})")["stderr"]


def test_nothing_leads_out():
    code = "var result = ['std','os','require','process','fetch','Deno','WebAssembly'].filter(n => n in globalThis)"
    assert run(code)["result"] == []


def test_endless_output_is_cut_and_said_to_be():
    answer = run("for (let i = 0; i < 1e5; i++) console.log('x'.repeat(100))")
    assert len(answer["stdout"]) < 140_000 and "more bytes were cut off" in answer["stdout"]


def test_a_flood_of_output_is_an_error_that_says_so():
    with pytest.raises(Failure) as failure:
        run("for (let i = 0; i < 100; i++) console.log('x'.repeat(1 << 20))")
    assert failure.value.code == "output_limit" and "MiB" in failure.value.message


@pytest.mark.parametrize(
    "code",
    ["const a = []; while (true) a.push(new Array(10000).fill(1))", "globalThis.a = []; while (true) a.push({x: 1})"],
)
def test_a_memory_bomb_ends_as_an_exception(code):
    answer = run(code)
    assert answer["exit_code"] == 1 and "out of memory" in answer["stderr"]


def test_deep_recursion_is_a_range_error_that_can_be_caught():
    answer = run("function f() { return f() + 1 }\nlet result; try { f() } catch (e) { result = e.name }")
    assert answer["result"] == "RangeError"
    assert "Maximum call stack size exceeded" in run("const f = () => [1].map(f); f()")["stderr"]


def test_an_endless_loop_ends_with_the_fuel():
    with pytest.raises(Exception, match="fuel"):
        Host(memory=128 * MIB, fuel=100_000_000).run("code_execution", {"language": "javascript", "code": "while (1);"})


def test_results_that_are_too_large_or_no_json():
    assert "larger than 256 KiB" in run("let result = 'x'.repeat(300000)")["stderr"]
    assert "larger than 256 KiB" in run("files.f = 'x'.repeat(300000)")["stderr"]
    assert "BigInt" in run("let result = 1n")["stderr"]
    assert run("let result = {}; result.self = result")["exit_code"] == 1


def test_python_is_refused_clearly():
    with pytest.raises(Failure, match="javascript only"):
        Host().run("code_execution", {"language": "python", "code": "1"})
