"""The wheel, installed into a fresh environment: everything imports, nothing is shadowed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("budgets", "orchestrator", "storage", "tools", "verifiers")

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(900)]

IMPORT_ALL = """
import importlib, pkgutil, sys, longthought
failed = []
for found in pkgutil.walk_packages(longthought.__path__, "longthought."):
    if ".training" in found.name or found.name.endswith(("__main__", "migrations.env")):
        continue  # training needs torch, the others run when they are imported
    try:
        importlib.import_module(found.name)
    except Exception as error:
        failed.append(f"{found.name}: {error!r}")
print(len([name for name in sys.modules if name.startswith("longthought.")]))
sys.exit("\\n".join(failed) or 0)
"""

SCRIPT = """
import tools, storage, verifiers            # the user's own
from longthought import Workflow, answers
from longthought import verifiers as judging
from longthought.tools import calculator

assert (tools.mine, storage.mine, verifiers.mine) == (1, 2, 3)
workflow = Workflow(
    model="embedded", answer=answers.puzzle(), verifier=judging.puzzle(), tools=[calculator()]
)
print(workflow.run_sync("4 7 8 8 -> 24").status)
"""


def run(*command: object, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        # a constraint named relative to the clone means nothing elsewhere
        env={**os.environ, "PIP_CONSTRAINT": "", "PIP_BUILD_CONSTRAINT": "", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("clone") / "longthought"
    # a build inside the clone would leave files there, which end up in the next wheel
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, symlinks=True, ignore=unwanted)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", out, source, cwd=out)
    [found] = out.glob("longthought-*.whl")
    return found


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the wheel and the exact versions in it."""
    home = tmp_path_factory.mktemp("fresh") / "env"
    venv.create(home, with_pip=True)
    constraints = ROOT / "constraints.txt"
    run(
        home / "bin" / "python",
        *("-m", "pip", "install", "-q", "-c", constraints, f"{wheel}[postgres]"),
        cwd=home,
    )
    return home / "bin"


def test_the_wheel_holds_the_folders_and_their_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for folder in FOLDERS:
        assert f"longthought/{folder}/__init__.py" in names
    assert "longthought/py.typed" in names
    assert any(name.endswith(".npz") for name in names)
    assert any(name.endswith("prices.toml") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"longthought"}


def test_every_module_imports(programs: Path, tmp_path: Path) -> None:
    assert int(run(programs / "python", "-c", IMPORT_ALL, cwd=tmp_path)) > 60


def test_a_script_may_have_modules_of_the_same_names_beside_it(
    programs: Path, tmp_path: Path
) -> None:
    for number, name in enumerate(("tools", "storage", "verifiers"), 1):
        (tmp_path / f"{name}.py").write_text(f"mine = {number}\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    data = str(tmp_path / "data")
    said = run(programs / "python", "script.py", cwd=tmp_path, LONGTHOUGHT_DATA_DIR=data)
    assert said.strip() in ("completed", "incomplete")


def test_the_program_solves_outside_the_clone(programs: Path, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    said = run(
        *(programs / "longthought", "solve", "4 7 8 8 -> 24", "--json"),
        cwd=tmp_path,
        LONGTHOUGHT_DATA_DIR=data,
    )
    assert json.loads(said)["status"] == "completed"
    run(programs / "longthought", "doctor", cwd=tmp_path, LONGTHOUGHT_DATA_DIR=data)


def test_a_clone_without_links_says_what_to_do(tmp_path: Path) -> None:
    face = tmp_path / "longthought"
    face.mkdir()
    for name in ("__init__.py", "errors.py", "types.py"):
        (face / name).write_text((ROOT / "longthought" / name).read_text())
    for folder in FOLDERS:
        (face / folder).write_text(f"../{folder}")  # what git writes where links are switched off
    done = subprocess.run(
        [sys.executable, "-c", "import longthought"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "git config core.symlinks true" in done.stderr
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    made = subprocess.run(
        ["make", "links"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert made.returncode != 0
    assert "git config core.symlinks true" in made.stdout
