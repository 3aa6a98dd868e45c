"""WebAssembly by hand: modules and components as bytes, right ones and wrong ones."""

import subprocess
from pathlib import Path

GUESTS = Path(__file__).resolve().parents[2] / "guests"
I32, I64, FUNCREF = 0x7F, 0x7E, 0x70
HEAD = b"\0asm\1\0\0\0"
COMPONENT_HEAD = b"\0asm\x0d\0\1\0"


def leb(n: int) -> bytes:
    out = b""
    while True:
        n, low = n >> 7, n & 127
        if n == 0:
            return out + bytes([low])
        out += bytes([low | 128])


def sleb(n: int) -> bytes:
    out = b""
    while True:
        low, n = n & 127, n >> 7
        if (n == 0 and not low & 64) or (n == -1 and low & 64):
            return out + bytes([low])
        out += bytes([low | 128])


def vec(items) -> bytes:
    items = list(items)
    return leb(len(items)) + b"".join(items)


def name(text) -> bytes:
    text = text.encode() if isinstance(text, str) else text
    return leb(len(text)) + text


def section(number: int, body: bytes) -> bytes:
    return bytes([number]) + leb(len(body)) + body


def const(n: int) -> bytes:
    return b"\x41" + sleb(n)


def func_type(parameters=(), results=()) -> bytes:
    return b"\x60" + vec(bytes([p]) for p in parameters) + vec(bytes([r]) for r in results)


def body(code: bytes, locals_: bytes = b"\0") -> bytes:
    whole = locals_ + code + b"\x0b"
    return leb(len(whole)) + whole


FD_WRITE = ("wasi_snapshot_preview1", "fd_write", (I32, I32, I32, I32), (I32,))
ANSWER = b'{"n":1}'
# iovec {8, 7} at 0, the answer at 8
GREETING = (8).to_bytes(4, "little") + len(ANSWER).to_bytes(4, "little") + ANSWER
SAY = const(1) + const(0) + const(1) + const(32) + b"\x10\0\x1a"     # fd_write(1, 0, 1, 32); drop
LOOP = b"\x03\x40\x0c\0\x0b"                                          # loop: br 0


def command(*, start: bytes = SAY, types=(), functions=(), tables=(), memory: bytes = b"\0\x01", more_memories=(), globals_=(),
            exports=(), at_start: int | None = None, elements=(), data=None, locals_: bytes = b"\0", tags=None, last: bytes = b"") -> bytes:
    """A wasi-command that prints its answer, and whatever else is asked for.  Function 0 is fd_write, 1 is _start."""
    types = [func_type(FD_WRITE[2], FD_WRITE[3]), func_type(), *types]
    functions = list(functions)
    data = [b"\0" + const(0) + b"\x0b" + name(GREETING)] if data is None else data
    parts = [
        (1, vec(types)),
        (2, vec([name(FD_WRITE[0]) + name(FD_WRITE[1]) + b"\0\0"])),
        (3, vec([b"\x01"] + [leb(t) for t, _ in functions])),
        (4, vec(tables)),
        (5, vec([memory, *more_memories])),
        (13, tags),
        (6, vec(globals_)),
        (7, vec([name("memory") + b"\x02\0", name("_start") + b"\0\x01", *exports])),
        (8, None if at_start is None else leb(at_start)),
        (9, vec(elements)),
        (10, vec([body(start, locals_)] + [body(code) for _, code in functions])),
        (11, vec(data)),
    ]
    return HEAD + b"".join(section(n, b) for n, b in parts if b not in (None, b"\0")) + last


def compiled(folder: Path, *flags: str, source: str = "escape.c") -> bytes | None:
    """A guest of tests/guests as wasm; None without a compiler for it."""
    out = folder / f"guest{len(list(folder.glob('guest*')))}.wasm"
    command_line = ["clang", "--target=wasm32-unknown-unknown", "-O1", "-nostdlib", "-ffreestanding", "-fno-builtin", "-mbulk-memory", "-w",
                    "-Wl,--no-entry", "-Wl,-z,stack-size=65536", *flags, "-o", str(out), str(GUESTS / source)]
    try:
        done = subprocess.run(command_line, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        return None
    if "No available targets" in done.stderr or "unable to create target" in done.stderr:
        return None
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


# ---- components ----

STRING, U32, U64, U8 = 0x73, 0x79, 0x77, 0x7D


def component_import(interface: str, function: str, parameters: list[int], call: bytes, *, core: tuple[int, ...] = (),
                     result: int | None = None, core_result: tuple[int, ...] = (), types: list[bytes] | None = None) -> bytes:
    """
    A component that exports `run` and imports one function of the host with types of its own choosing.  `call` is the core code that
    calls it (function 0), `core` the core types of its parameters; run answers {"n":1}.  A parameter below zero is -1 - an index of
    `types`, which are type definitions in the instance.
    """
    types = types or []
    valtype = lambda p: bytes([p]) if p >= 0 else leb(-1 - p)  # noqa: E731
    signature = b"\x40" + vec(name(f"p{i}") + valtype(p) for i, p in enumerate(parameters))
    signature += b"\x01\0" if result is None else b"\0" + valtype(result)
    instance = b"\x42" + vec([*[b"\x01" + t for t in types], b"\x01" + signature, b"\x04\0" + name(function) + b"\x01" + leb(len(types))])
    # core: memory, realloc (always 4096), run: writes {ok, 64, 7} at 16, calls the import
    answer = 64
    run = call + const(16) + const(0) + b"\x36\x02\0" + const(16) + const(answer) + b"\x36\x02\x04" + const(16) + const(len(ANSWER))
    run += b"\x36\x02\x08" + const(16)
    core_module = HEAD + b"".join([
        section(1, vec([func_type(core, core_result), func_type((I32,) * 4, (I32,)), func_type((I32, I32), (I32,))])),
        section(2, vec([name("h") + name("f") + b"\0\0"])),
        section(3, vec([b"\x01", b"\x02"])),
        section(5, vec([b"\0\x02"])),
        section(7, vec([name("memory") + b"\x02\0", name("realloc") + b"\0\x01", name("run") + b"\0\x02"])),
        section(10, vec([body(const(4096)), body(run)])),
        section(11, vec([b"\0" + const(answer) + b"\x0b" + name(ANSWER)])),
    ])
    text_result = b"\x6a\x01" + bytes([STRING]) + b"\x01" + bytes([STRING])
    return COMPONENT_HEAD + b"".join([
        section(7, vec([instance])),                                                      # type 0: the instance
        section(10, vec([b"\0" + name(interface) + b"\x05\0"])),                          # import it: instance 0
        section(6, vec([b"\x01\0\0" + name(function)])),                                  # alias its function: func 0
        section(8, vec([b"\x01\0\0" + vec([])])),                                         # canon lower: core func 0
        section(1, core_module),                                                          # core module 0
        section(2, vec([b"\x01" + vec([name("f") + b"\0\0"])])),                          # core instance 0: {f}
        section(2, vec([b"\0\0" + vec([name("h") + b"\x12\0"])])),                        # core instance 1: the module
        section(6, vec([b"\0\x02\x01\x01" + name("memory"), b"\0\0\x01\x01" + name("realloc"), b"\0\0\x01\x01" + name("run")])),
        section(7, vec([text_result, b"\x40" + vec([name("input") + bytes([STRING])]) + b"\0\x01"])),   # types 1, 2
        section(8, vec([b"\0\0\x02" + vec([b"\x03\0", b"\x04\x01"]) + b"\x02"])),        # canon lift: func 1
        section(11, vec([b"\0" + name("run") + b"\x01\x01\0"])),
    ])
