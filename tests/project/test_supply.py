"""What jwtproxy is made of is told as it is."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement

from jwtproxy import __version__

ROOT = Path(__file__).parents[2]


def test_the_bill_of_materials_names_all_that_is_installed_with_its_version(tmp_path: Path) -> None:
    bom = tmp_path / "out/bom.json"
    done = subprocess.run(["sh", ".ci/sbom", str(bom)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(bom.read_text())
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.5")
    own = told["metadata"]["component"]
    assert (own["name"], own["version"], own["purl"]) == ("jwtproxy", __version__, f"pkg:pypi/jwtproxy@{__version__}")
    assert own["type"] == "application"
    components = {one["name"]: one for one in told["components"]}
    for name, one in components.items():
        assert one["purl"] == f"pkg:pypi/{name}@{one['version']}"
    assert len({one["bom-ref"] for one in [own, *told["components"]]}) == len(components) + 1
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in (re.sub("[-_.]+", "-", Requirement(text).name.lower()) for text in project["dependencies"]):
        assert components[name]["version"] == version(name)
    assert {"cryptography", "h2", "markdown-it-py"} <= set(components), "what these need"
    assert not {"pytest", "hypothesis", "pip-audit"} & set(components), "what only developers need"
