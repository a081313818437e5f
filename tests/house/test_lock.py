"""The lock: each dependency in one version, with hashes; README's commands install from it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent.parent
LOCK = ROOT / ".github" / "requirements"
FILES = sorted(LOCK.glob("*.txt"))
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT, GROUPS = CONFIGURATION["project"], CONFIGURATION["dependency-groups"]
EXTRAS = PROJECT["optional-dependencies"]

_PIN = re.compile(r"([a-z0-9.-]+)==([^ ]+)(?: ; (.+?))?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")

pytestmark = pytest.mark.skipif(not FILES, reason="a source distribution has no lock")


def pins(name):
    """The versions of each package in a file: several if they depend on the Python version."""
    found = {}
    for package, version, _, _ in _PIN.findall((LOCK / f"{name}.txt").read_text("ascii")):
        found.setdefault(package, set()).add(Version(version))
    return found


def group(name):
    """The packages of a dependency group, with the groups that it includes."""
    for each in GROUPS[name]:
        if isinstance(each, str):
            yield Requirement(each)
        else:
            yield from group(each["include-group"])


def own(extra):
    """The dependencies of the package with an extra."""
    requirements = map(Requirement, PROJECT["dependencies"] + EXTRAS[extra])
    for each in requirements:
        if each.name == PROJECT["name"]:
            for part in each.extras:
                yield from own(part)
        else:
            yield each


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


WANTED = {
    "demo": [*own("cli"), *group("build")],
    "test": [*own("all"), *group("ci")],
    "lint": [*group("lint"), *group("docs"), *group("lock")],
    "lowest": [*own("all"), *group("ci")],
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_lock_holds_pinned_versions_with_hashes_and_nothing_else(file):
    """Every package has a hash, and no index address is named."""
    text = file.read_text("ascii")
    assert _PIN.search(text)
    rest = _PIN.sub("", text)
    assert all(line.startswith("#") for line in rest.splitlines()), rest
    assert "://" not in text


@pytest.mark.parametrize("name", WANTED)
def test_the_lock_has_every_dependency_in_its_range(name):
    """The lock has every dependency of `pyproject.toml` in its range."""
    locked = pins(name)
    for each in WANTED[name]:
        versions = locked.get(canonical(each.name))
        assert versions, f"{each.name} is not in {name}.txt: run .ci/lock"
        assert all(each.specifier.contains(version) for version in versions), f"{each} is not {versions}: run .ci/lock"


def test_what_the_package_needs_is_at_its_floor_in_the_lowest_lock():
    """The lowest lock has each dependency at the floor that `pyproject.toml` names."""
    locked = pins("lowest")
    for each in own("all"):
        (floor,) = (Version(one.version).release for one in each.specifier if one.operator == ">=")
        (version,) = locked[canonical(each.name)]
        assert version.release[: len(floor)] == floor, each


def test_one_package_has_one_version_in_all_locks():
    """All locks agree on a package's version, except the lowest lock and the lock of the SBOM tool."""
    first, *others = (pins(name) for name in ("test", "demo", "lint", "build"))
    for other in others:
        for package in first.keys() & other.keys():
            assert first[package] == other[package], package


def test_the_build_backend_comes_from_the_lock():
    """README builds without isolation, with the locked backend."""
    assert GROUPS["build"] == CONFIGURATION["build-system"]["requires"]


@pytest.mark.parametrize(("marker", "lock"), [("demo", "demo"), ("tests", "test")])
def test_readme_installs_from_the_lock_and_from_nowhere_else(marker, lock):
    """Each pip command either requires hashes from the lock, or installs only the package itself."""
    text = (ROOT / "README.md").read_text("utf-8")
    line = next(line for line in text.partition(f"<!-- {marker} -->")[2].splitlines() if line.startswith("python3 "))
    installs = [part for part in line.split(" && ") if "pip " in part]
    assert len(installs) == 2
    assert f"--require-hashes -r .github/requirements/{lock}.txt" in installs[0]
    assert "--no-deps --no-build-isolation" in installs[1]
    assert "--upgrade" not in line
