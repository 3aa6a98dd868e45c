"""Tool folders for tests: the shipped tools, and one that the policy takes for dangerous."""

import shutil
from pathlib import Path

import yaml

from .server import toolbox

DANGEROUS = "erase_everything"


def tools_with_a_dangerous_one(folder: Path, **changes) -> Path:
    """A tool folder in which `erase_everything` (text_processing under another name) has the category system."""
    shutil.copytree(toolbox(), folder, ignore=shutil.ignore_patterns("CMakeFiles", "*.cmake", "objects", "*.o"))
    source, target = folder / "text_processing", folder / DANGEROUS
    shutil.copytree(source, target)
    manifest = yaml.safe_load((target / "manifest.yaml").read_text())
    manifest |= {"name": DANGEROUS, "category": "system", "pure": False, "idempotent": False, **changes}
    (target / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return folder


def add_tool(folder: Path, name: str, **changes) -> None:
    """`wordcount` under another name, with another manifest."""
    target = folder / name
    shutil.copytree(folder / "wordcount", target)
    manifest = yaml.safe_load((target / "manifest.yaml").read_text())
    (target / "manifest.yaml").write_text(yaml.safe_dump({**manifest, "name": name, **changes}, sort_keys=False))
