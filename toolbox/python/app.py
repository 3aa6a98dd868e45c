"""The component's entry: runs one program of a user and gives back what it leaves behind.

This module and all it imports are loaded when the component is built; what the build leaves in memory is the snapshot
from which every call starts.  So whatever costs time is done at import, and what must differ per call is in run().
"""
import gc
import json
import linecache
import os
import random
import sys
import traceback
import types

import stdlib_modules
import async_loop
import capture
import missing
import nexus
import results
import text_files
from componentize_py_types import Err

FILE_NAME = "code.py"
OUR_FOLDER = os.path.dirname(__file__) + "/"
STDOUT_BYTES_MAX = 128 * 1024
STDERR_BYTES_MAX = 32 * 1024
FLOOD_BYTES = 64 * 1024 * 1024  # printed in vain: beyond this the call fails instead of being cut
RECURSION_LIMIT = 1000


# What a notebook keeps between its calls; a call without one never sees it.
_kept = None
_cells = {FILE_NAME}  # names under which the user's code was compiled


def failure(code, message):
    return Err(json.dumps({"code": code, "message": message}))


def user_frames(error):
    """The traceback from the user's first frame on: ours above it are nobody's business."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename not in _cells:
        trace = trace.tb_next
    return trace


def hide_ours(told, seen):
    """Nor are those below: open() and imports pass through files of this folder."""
    if told is None or id(told) in seen:
        return
    seen.add(id(told))
    told.stack[:] = [frame for frame in told.stack if not frame.filename.startswith(OUR_FOLDER)]
    for other in (told.__cause__, told.__context__, *(told.exceptions or ())):
        hide_ours(other, seen)


def report(error):
    """Prints an uncaught exception as the interpreter does, to stderr."""
    try:
        told = traceback.TracebackException.from_exception(error.with_traceback(user_frames(error)), limit=-40)
        hide_ours(told, set())
        told.print(file=sys.stderr)
    except RecursionError:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")


def exit_code_of(error):
    """sys.exit(): None is success, a number is the code, anything else is a message."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1


def out_of_memory(error):
    """The program could have caught it; that it did not makes it the call's end.  Said before what it holds is used."""
    global _kept
    trace, line = user_frames(error), 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in _cells:
            line = trace.tb_lineno
        trace = trace.tb_next
    error.__traceback__ = None
    sys.modules.pop("__main__", None)
    _kept = None
    return f"MemoryError in line {line}: the program needs more memory than it may have"


def execute(source, name, namespace):
    try:
        exec(compile(source, name, "exec", dont_inherit=True), namespace)
        return 0
    except SystemExit as error:
        return exit_code_of(error)
    except MemoryError as error:
        raise failure("memory_limit", out_of_memory(error)) from None
    except capture.Flood:
        return 1
    except BaseException as error:
        report(error)
        return 1


class Notebook:
    """The module that lives on, and how many calls it has seen."""

    def __init__(self):
        self.module = types.ModuleType("__main__")
        self.calls = 0


def open_notebook():
    """The one this interpreter keeps: whoever started it sees to it that it serves one notebook only."""
    global _kept
    if _kept is None:
        _kept = Notebook()
    _kept.calls += 1
    _kept.module.__dict__.pop("result", None)
    return _kept


def main_module(module, name, request, files):
    module.__file__ = name
    module.input = request.get("input")
    module.files = files
    module.nexus = nexus
    sys.modules["__main__"] = module
    return module


def show_source(source, name):
    """Tracebacks quote the user's lines."""
    _cells.add(name)
    linecache.cache[name] = (len(source), None, [line + "\n" for line in source.split("\n")], name)


def outcome(module, before, exit_code, out, err):
    answer = {}
    if exit_code == 0:
        try:
            if "result" in module.__dict__:
                answer["result"] = results.as_json(module.__dict__["result"])
            changed = text_files.changed(module.__dict__.get("files"), before)
            if changed:
                answer["files"] = changed
        except results.Unfit as error:
            sys.stderr.write(f"{error}\n")
            answer, exit_code = {}, 1
    return {**answer, "stdout": out.text(), "stderr": err.text(), "exit_code": exit_code}


class WitWorld:
    def run(self, input_json):
        request = json.loads(input_json)
        source, files = request["code"], dict(request.get("files") or {})
        out, err = capture.Capture(STDOUT_BYTES_MAX, FLOOD_BYTES), capture.Capture(STDERR_BYTES_MAX, FLOOD_BYTES)
        sys.stdout, sys.stderr, sys.stdin = out.stream, err.stream, text_files.empty_stdin()
        notebook = open_notebook() if "notebook" in request else None
        name = FILE_NAME if notebook is None or notebook.calls == 1 else f"code-{notebook.calls}.py"
        sys.argv = [name]
        random.seed()  # the snapshot holds the seed of the build
        text_files.use(files)
        show_source(source, name)
        module = main_module(types.ModuleType("__main__") if notebook is None else notebook.module, name, request, files)
        before = dict(files)
        exit_code = execute(source, name, module.__dict__)
        answer = outcome(module, before, exit_code, out, err)
        if notebook is not None:
            answer["notebook"] = {"state": "new" if notebook.calls == 1 else "kept", "calls": notebook.calls}
        if out.dropped + err.dropped > FLOOD_BYTES:
            raise failure("output_limit", f"the program printed over {FLOOD_BYTES >> 20} MiB, of which at most "
                          f"{STDOUT_BYTES_MAX >> 10} KiB can be kept; print less, or give a summary in `result`")
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


sys.setrecursionlimit(RECURSION_LIMIT)
stdlib_modules.load()
async_loop.install()
missing.install()
text_files.install()
# What the snapshot holds stays: the collector would only touch (and so copy) its pages.
gc.collect()
gc.freeze()
