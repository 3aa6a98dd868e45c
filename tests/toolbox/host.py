"""A small host for the shipped tools: runs one `nexus-export` module as the agent core does.

It gives a guest what the ABI promises and no more: WASI preview 1 with nothing preopened and the imports
of module `nexus`, under fuel and a memory limit.  A fresh instance for each call.
"""

import json
import os
import time
from pathlib import Path

import wasmtime

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("NEXUS_TOOLBOX", ROOT / "build" / "toolbox"))
MIB = 1024 * 1024

_engine = None
_modules = {}


def _module(name):
    global _engine
    if _engine is None:
        config = wasmtime.Config()
        config.consume_fuel = True
        config.max_wasm_stack = 2 * MIB
        _engine = wasmtime.Engine(config)
    if name not in _modules:
        path = BUILD / name / f"{name}.wasm"
        _modules[name] = wasmtime.Module.from_file(_engine, str(path))
    return _engine, _modules[name]


class Failure(Exception):
    """The tool answered {"error": ...}."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.code = error["code"]
        self.message = error["message"]


class Host:
    def __init__(self, files=None, calls=None, memory=64 * MIB, fuel=20_000_000_000):
        self.files = files or {}
        self.calls = calls or {}
        self.memory_limit = memory
        self.fuel = fuel
        self.log = []
        self.seconds = 0.0
        self.fuel_used = 0
        self.memory_used = 0

    def run(self, tool, request):
        """The tool's output, or Failure."""
        output = self.run_raw(tool, json.dumps(request).encode())
        answer = json.loads(output)
        if isinstance(answer, dict) and set(answer) == {"error"}:
            raise Failure(answer["error"])
        return answer

    def run_raw(self, tool, request):
        engine, module = _module(tool)
        store = wasmtime.Store(engine)
        store.set_limits(memory_size=self.memory_limit)
        store.set_fuel(self.fuel)
        store.set_wasi(wasmtime.WasiConfig())
        linker = wasmtime.Linker(engine)
        linker.define_wasi()
        exports = {}
        self._define(linker, exports)
        instance = linker.instantiate(store, module)
        exports.update({e: instance.exports(store)[e] for e in ("memory", "nexus_alloc", "nexus_run")})
        begin = time.perf_counter()
        if "_initialize" in instance.exports(store):             # a snapshot is initialised already
            instance.exports(store)["_initialize"](store)
        ptr = exports["nexus_alloc"](store, len(request))
        memory = exports["memory"]
        memory.write(store, request, ptr)
        packed = exports["nexus_run"](store, ptr, len(request)) & 0xFFFFFFFFFFFFFFFF
        out, length = packed >> 32, packed & 0xFFFFFFFF
        result = bytes(memory.read(store, out, out + length))
        self.seconds = time.perf_counter() - begin
        self.fuel_used = self.fuel - store.get_fuel()
        self.memory_used = memory.data_len(store)
        return result

    def _define(self, linker, exports):
        i32, i64 = wasmtime.ValType.i32(), wasmtime.ValType.i64()

        def define(name, params, results, function):
            kind = wasmtime.FuncType(params, results)
            linker.define_func("nexus", name, kind, function, access_caller=True)

        def text(caller, ptr, length):
            return bytes(exports["memory"].read(caller, ptr, ptr + length)).decode()

        def host_call(caller, name_ptr, name_len, ptr, length):
            name, request = text(caller, name_ptr, name_len), json.loads(text(caller, ptr, length))
            if name not in self.calls:
                answer = {"error": {"code": "denied", "message": f"host call {name} is not granted"}}
            else:
                answer = self.calls[name](request)
            data = json.dumps(answer).encode()
            out = exports["nexus_alloc"](caller, len(data))
            exports["memory"].write(caller, data, out)
            return (out << 32) | len(data)

        def file_size(caller, name_ptr, name_len):
            data = self.files.get(text(caller, name_ptr, name_len))
            return -1 if data is None else len(data)

        def file_read(caller, name_ptr, name_len, offset, dst, size):
            data = self.files.get(text(caller, name_ptr, name_len))
            if data is None:
                return -1
            piece = data[offset : offset + size]
            exports["memory"].write(caller, bytes(piece), dst)
            return len(piece)

        def file_write(caller, name_ptr, name_len, offset, src, size):
            name = text(caller, name_ptr, name_len)
            old = bytearray(self.files.get(name, b""))
            old[offset : offset + size] = exports["memory"].read(caller, src, src + size)
            self.files[name] = bytes(old)
            return size

        def log(caller, ptr, length):
            self.log.append(text(caller, ptr, length))

        define("host_call", [i32, i32, i32, i32], [i64], host_call)
        define("file_size", [i32, i32], [i64], file_size)
        define("file_read", [i32, i32, i64, i32, i32], [i32], file_read)
        define("file_write", [i32, i32, i64, i32, i32], [i32], file_write)
        define("log", [i32, i32], [], log)
