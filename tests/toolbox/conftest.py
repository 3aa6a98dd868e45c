"""Runs the shipped tools' guests.  Needs PyPI `wasmtime`; the
modules are looked for in build/toolbox, or where NEXUS_TOOLBOX says.  Without either the tests are skipped, loudly."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

try:
    import host
except ImportError as problem:  # pragma: no cover
    pytest.skip(f"toolbox tests need the Python package wasmtime: {problem}", allow_module_level=True)

if not host.BUILD.is_dir():
    pytest.skip(f"toolbox tests need the built tools in {host.BUILD}", allow_module_level=True)
