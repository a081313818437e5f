"""A release: the same bytes each time, only our own files, and hardened workflows."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SOURCES = ("servetel_async", "tests", "benchmarks", "docs", "README.md", "LICENSE", "pyproject.toml", ".gitignore")
#: Stray files of a working tree.
JUNK = (
    *("calls.db", "may.ndjson", "may.ndjson.receipt.json", ".env", "token.txt", "dist/old.whl", "out/calls.csv"),
    *("docs/_build/index.html", "servetel_async/__pycache__/left.cpython-311.pyc", "tests/calls.ndjson.part"),
)

needs_workflows = pytest.mark.skipif(not WORKFLOWS, reason="a source distribution has no workflows")


def build(kind, tree, out):
    """Build a wheel or a source distribution of a tree; returns its file."""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "hatchling", "build", "-t", kind, "-d", str(out)],
        cwd=tree,
        env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000", "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        capture_output=True,
    )
    (built,) = out.iterdir()
    return built


@pytest.fixture
def copy(tmp_path):
    """Copies of the tree, each with times and modes of its own."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("not installed: hatchling")

    def make(name, mode, moment):
        tree = tmp_path / name
        tree.mkdir()
        for source in SOURCES:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, tree / source, ignore=shutil.ignore_patterns("__pycache__", "_build"))
            elif (ROOT / source).exists():
                shutil.copy(ROOT / source, tree / source)
        for path in tree.rglob("*"):
            if path.is_file():
                path.chmod(mode)
                os.utime(path, (moment, moment))
        return tree

    return make


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_two_builds_are_the_same_bytes(tmp_path, copy, kind):
    """Two builds are the same bytes at any place and time, so a rebuild can be compared with the published files."""
    first = build(kind, copy("here", 0o644, 1_500_000_000), tmp_path / "first")
    second = build(kind, copy("there", 0o600, 1_600_000_000), tmp_path / "second")
    assert first.name == second.name
    assert sha256(first.read_bytes()).hexdigest() == sha256(second.read_bytes()).hexdigest()


def test_a_release_holds_only_what_it_should(tmp_path, copy):
    """A release holds the whole package, and no stray outputs or tokens."""
    tree = copy("tree", 0o644, 1_500_000_000)
    for name in JUNK:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("junk", "ascii")
    with tarfile.open(build("sdist", tree, tmp_path / "sdist")) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(build("wheel", tree, tmp_path / "wheel")) as archive:
        installed = set(archive.namelist())
    assert not inside & set(JUNK)
    assert {name.split("/")[0] for name in inside} <= {*SOURCES, "PKG-INFO"}
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "servetel_async").rglob("*.py")}
    assert package <= inside
    assert {name for name in installed if name.endswith(".py")} == package
    others = {name for name in installed if not name.endswith(".py")}
    assert {re.sub(r"^[^/]*\.dist-info/", "", name) for name in others} == {
        *("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "servetel_async/py.typed")
    }


def test_the_floor_of_aiohttp_is_a_safe_one():
    """Every dependency has a floor; that of aiohttp has bounds for hostile bodies and headers."""
    for needed in PROJECT["project"]["dependencies"]:
        assert re.fullmatch(r"[a-z]+>=[\d.]+(,<\d+)?", needed), needed
    (floor,) = re.findall(r"aiohttp>=([\d.]+)", "\n".join(PROJECT["project"]["dependencies"]))
    assert tuple(map(int, floor.split("."))) >= (3, 14, 1)


def test_the_rules_of_security_are_on():
    """All rules of ruff, security included, check the package; only generated data may be random."""
    rules = PROJECT["tool"]["ruff"]["lint"]
    assert rules["select"] == ["ALL"]
    assert not [rule for rule in rules["ignore"] if re.fullmatch(r"S\d*", rule)]
    loosened = {path: rules for path, rules in rules["per-file-ignores"].items() if path.startswith("servetel_async")}
    assert loosened == {"servetel_async/emulator/**": ["S311"]}


@needs_workflows
@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.stem)
def test_every_action_is_pinned(workflow):
    """Every action is pinned to a commit, with its version beside it, because a tag can be moved."""
    used = re.findall(r"uses: *(.*)", workflow.read_text("utf-8"))
    assert used
    for each in used:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v[\d.]+", each), each


@needs_workflows
@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.stem)
def test_a_workflow_may_do_little(workflow):
    """A job has only declared rights, leaves no credentials in a clone, and runs no outside code with our rights."""
    text = workflow.read_text("utf-8")
    assert re.search(r"^permissions: \{\}$", text, re.MULTILINE)
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")
    assert "pull_request_target" not in text
    assert "timeout-minutes" in text
    assert "secrets." not in text


@needs_workflows
def test_each_job_of_a_release_checks_what_it_gets():
    """A job verifies the digests of files from another job before it uses them."""
    text = (GITHUB / "workflows" / "release.yml").read_text("utf-8")
    jobs = dict(re.findall(r"^  (\w+):\n((?:(?:    .*)?\n)+)", text.partition("\njobs:\n")[2] + "\n", re.MULTILINE))
    assert {"build", "test", "sbom", "attest", "publish", "announce"} <= set(jobs)
    for name, job in jobs.items():
        steps = re.split(r"^      - ", job, flags=re.MULTILINE)[1:]
        for step, after in zip(steps, [*steps[1:], ""], strict=True):
            if "download-artifact@" in step:
                assert re.search(r"run: diff <\(.*DIGEST.* <\(cd \w+ && sha256sum", after), name
                assert re.search(r"DIGESTS?: \$\{\{ needs\.\w+\.outputs\.digests? \}\}", after), name


@needs_workflows
def test_zizmor_finds_nothing():
    """The workflow linter zizmor reports nothing."""
    zizmor = shutil.which("zizmor") or shutil.which("zizmor", path=str(Path(sys.executable).parent))
    if zizmor is None:
        pytest.skip("not installed: zizmor")
    done = subprocess.run(
        [zizmor, "--offline", "--strict-collection", "--persona=auditor", "--quiet", str(GITHUB)],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stdout
