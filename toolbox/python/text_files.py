"""`files` of a call, as a dict and as files.

There is no file system.  open(), io.open() and pathlib's methods that open by a name work on the dict `files`: reading
takes what is there, writing puts it there when the file is closed.
"""
import builtins
import io
import os

import results

FILES_BYTES_MAX = 256 * 1024

_files = {}
_real_open = io.open


def use(files):
    global _files
    _files = files


def _name_of(path):
    name = os.fspath(path)
    if isinstance(name, bytes):
        name = name.decode()
    return name[2:] if name.startswith("./") else name


class _Writer(io.BytesIO):
    """Bytes that become an entry of `files` when they are complete."""

    def __init__(self, name, content, is_readable):
        super().__init__(content)
        self.name = name
        self._is_readable = is_readable

    def readable(self):
        return self._is_readable

    def flush(self):
        super().flush()
        self._keep()

    def _keep(self):
        try:
            _files[self.name] = self.getvalue().decode("utf-8")
        except UnicodeDecodeError:
            raise OSError(f"{self.name}: files hold text, and these bytes are not UTF-8") from None

    def close(self):
        if not self.closed:
            self._keep()
        super().close()


class _Reader(io.BytesIO):
    def __init__(self, name, content):
        super().__init__(content)
        self.name = name

    def writable(self):
        return False

    def write(self, data):
        raise io.UnsupportedOperation("not writable")


def _raw(name, kind, is_updating):
    if kind == "x" and name in _files:
        raise FileExistsError(17, "File exists", name)
    if kind == "r" and name not in _files:
        known = ", ".join(sorted(_files)[:20]) or "none"
        raise FileNotFoundError(2, f"No such file (files of this call: {known})", name)
    if kind == "r" and not is_updating:
        return _Reader(name, _files[name].encode())
    start = _files.get(name, "").encode() if kind in "ra" else b""
    writer = _Writer(name, start, is_updating)
    if kind == "a":
        writer.seek(0, io.SEEK_END)
    return writer


def _open(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
    if isinstance(file, int) or opener is not None:
        return _real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
    kinds = [c for c in mode if c in "rwax"]
    if len(kinds) != 1 or set(mode) - set("rwaxbt+") or ("b" in mode and "t" in mode):
        raise ValueError(f"invalid mode: {mode!r}")
    raw = _raw(_name_of(file), kinds[0], "+" in mode)
    if "b" in mode:
        return raw
    return io.TextIOWrapper(raw, encoding=encoding or "utf-8", errors=errors, newline=newline)


def changed(files, before):
    """Entries of `files` that were added or changed."""
    if not isinstance(files, dict):
        return {}
    out, total = {}, 0
    for name, text in files.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise results.Unfit(f"files must hold texts by name; {name!r} is {type(text).__name__}")
        if before.get(name) == text:
            continue
        try:
            total += len(name.encode()) + len(text.encode())
        except UnicodeEncodeError:
            raise results.Unfit(f"files: {name!r} holds text that is not valid Unicode") from None
        out[name] = text
        if total > FILES_BYTES_MAX:
            raise results.Unfit(f"the files written are larger than {FILES_BYTES_MAX >> 10} KiB together")
    return out


def empty_stdin():
    return io.StringIO("")


def install():
    builtins.open = io.open = _open
