"""Standard output and error of a program: kept up to a maximum, the rest counted."""
import io


class Flood(BaseException):
    """More was printed than anybody could want: the program ends."""


class _Bounded(io.RawIOBase):
    def __init__(self, kept_max, flood_bytes):
        super().__init__()
        self.kept = bytearray()
        self.kept_max = kept_max
        self.flood_bytes = flood_bytes
        self.dropped = 0

    def writable(self):
        return True

    def write(self, data):
        data = memoryview(data).cast("B")
        room = self.kept_max - len(self.kept)
        self.kept += data[:room]
        if len(data) > room:
            self.dropped += len(data) - room
            if self.dropped > self.flood_bytes:
                raise Flood
        return len(data)


class Capture:
    """`stream` is what the program sees; text() what it wrote."""

    def __init__(self, kept_max, flood_bytes):
        self._raw = _Bounded(kept_max, flood_bytes)
        self.stream = io.TextIOWrapper(io.BufferedWriter(self._raw, 8192), encoding="utf-8",
                                       errors="backslashreplace", newline="\n")

    @property
    def dropped(self):
        return self._raw.dropped

    def text(self):
        try:
            self.stream.flush()
        except (Flood, ValueError):  # the program may have closed it
            pass
        text = self._raw.kept.decode("utf-8", "replace")
        if self.dropped:
            text += f"\n[{self.dropped} more bytes were cut off]\n"
        return text
