"""An import of something that is not here says so in words that help: there are no packages to install."""
import sys

_WITHOUT = {
    "ssl": "connections go through the tool http_request",
    "ctypes": "there is no native code",
    "multiprocessing": "there are no processes",
    "subprocess": "there are no processes",
    "bz2": "zlib and gzip are there",
    "lzma": "zlib and gzip are there",
    "tkinter": "there is no screen",
    "numpy": "statistics, math, fractions, itertools and array are there; or use the tool data_analysis",
    "pandas": "csv and statistics are there; or use the tool data_analysis",
    "requests": "use the tool http_request",
}


class _Explainer:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if path is not None:
            return None  # a submodule: its parent's business
        hint = _WITHOUT.get(name, "nothing can be installed")
        raise ModuleNotFoundError(f"No module named {name!r}: only Python's standard library is here ({hint})", name=name)


def install():
    sys.meta_path.append(_Explainer)
