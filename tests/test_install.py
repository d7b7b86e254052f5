"""The pinned sets, and what messages say to type."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PIN = re.compile(r"([a-z0-9][a-z0-9-]*)==([0-9a-z.!+]+)")
HERE = "constraints/py{}.{}.txt".format(*sys.version_info)


def pins(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    matches = [PIN.fullmatch(line) for line in lines]
    assert all(matches), f"expected names and versions only in {file}"
    return {match[1]: match[2] for match in matches if match}


def declared(project: Path) -> dict:
    return tomllib.loads((project / "pyproject.toml").read_text())["project"]


def requirements(metadata: dict, extras: list[str], python: str) -> list[Requirement]:
    """Of the package with these extras, also by way of its other extras."""
    found, waiting, seen = [*metadata["dependencies"]], [*extras], set()
    while waiting:
        extra = waiting.pop()
        seen.add(extra)
        for text in metadata["optional-dependencies"][extra]:
            if Requirement(text).name == metadata["name"]:
                waiting += sorted(Requirement(text).extras - seen)
            else:
                found.append(text)
    environment = {"python_version": python, "sys_platform": "linux"}
    wanted = map(Requirement, found)
    return [one for one in wanted if one.marker is None or one.marker.evaluate(environment)]


@pytest.mark.parametrize("python", PYTHONS)
def test_each_python_has_a_pinned_set_that_fits(python: str, project: Path) -> None:
    metadata = declared(project)
    pinned = pins(project / f"constraints/py{python}.txt")
    wanted = requirements(metadata, [*metadata["optional-dependencies"]], python)
    assert len(wanted) > 50
    wrong = [
        f"{one}, pinned: {pinned.get(name)}"
        for one in wanted
        if (name := one.name.lower().replace("_", "-").replace(".", "-")) not in pinned
        or not one.specifier.contains(pinned[name], prereleases=True)
    ]
    assert not wrong, f"run `make constraints`: {wrong}"


def test_the_pins_are_seen_to_differ_from_what_they_do_not_fit(project: Path) -> None:
    metadata = declared(project)
    hosts = {"basicsr", "mmagic"}
    assert hosts <= set(pins(project / "constraints/py3.12.txt"))
    assert not hosts & set(pins(project / "constraints/py3.13.txt"))  # neither installs there
    names = {one.name for one in requirements(metadata, ["all"], "3.12")}
    assert {"torch", "mmagic", "scikit-learn", "sphinx"} <= names
    assert "mmagic" not in {one.name for one in requirements(metadata, ["all"], "3.13")}


def test_extras_that_read_checkpoints_of_others_leave_out_unsafe_versions(project: Path) -> None:
    metadata = declared(project)
    for extra in metadata["optional-dependencies"]:
        for one in requirements(metadata, [extra], "3.12"):
            assert one.name != "pillow" or not one.specifier.contains("12.1.0"), extra
        if extra in ("basicsr", "mmagic", "evaluate", "all"):
            torch = [one for one in requirements(metadata, [extra], "3.12") if one.name == "torch"]
            assert not all(one.specifier.contains("2.5.1") for one in torch), extra


def said(project: Path, code: str, *folders: Path) -> str:
    """What Python prints that has nothing installed but what lies in `folders`."""
    path = [str(folder) for folder in (project, *folders)]
    program = f"import sys; sys.path[:0] = {path!r}; from contrastive_sr._install import *; print({code})"
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, cwd="/usr")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def installed(folder: Path, name: str, version: str) -> None:
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_what_to_type_where_nothing_is_installed(project: Path) -> None:
    assert said(project, "install('plot', 'demo')") == f'pip install -c {project / HERE} -e "{project}[demo,plot]"'
    assert said(project, "pip_install('torch', 'numpy<2')") == f'pip install -c {project / HERE} torch "numpy<2"'


def test_an_installed_package_is_named_so_that_no_index_is_asked_for_it(project: Path, tmp_path: Path) -> None:
    installed(tmp_path, "contrastive-sr", "0.1.0")
    plain = f'pip install -c {project / HERE} "contrastive-sr[plot]"'
    assert said(project, "install('plot')", tmp_path) == plain


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="no host installs there")
def test_basicsr_comes_after_what_it_needs(project: Path) -> None:
    command, then = said(project, "install('demo', 'basicsr')").split(" && ")
    assert command == f'pip install -c {project / HERE} -e "{project}[basicsr,demo]"'
    assert then == "pip install --no-build-isolation --no-deps basicsr==1.4.2"


def test_a_torch_that_is_there_stays(project: Path, tmp_path: Path) -> None:
    pinned = pins(project / HERE)["torch"]
    for version, expected in (
        (pinned, f"-c {project / HERE}"),
        (f"{pinned}+cpu", f"-c {project / HERE}"),
        ("2.6.0+cu124", '"torch==2.6.0+cu124"'),
    ):
        folder = tmp_path / version
        folder.mkdir()
        installed(folder, "torch", version)
        assert said(project, "pip_install('torchvision')", folder) == f"pip install {expected} torchvision"


def test_doctor_leaves_a_torch_that_works_alone(tmp_path: Path, project: Path) -> None:
    """In an environment with torch and without torchvision."""
    venv.create(tmp_path / "venv", symlinks=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    for file in Path(next(path for path in sys.path if path.endswith("site-packages"))).iterdir():
        if not file.name.startswith("torchvision"):
            (packages / file.name).symlink_to(file)
    code = (
        f"import sys; sys.path.insert(0, {str(project)!r})\n"
        "from contrastive_sr.hosts.doctor import _check_torch\n"
        "print([(one.subject, one.state, one.remedy) for one in _check_torch()])"
    )
    done = subprocess.run([tmp_path / "venv/bin/python", "-c", code], capture_output=True, text=True, cwd="/usr")
    assert done.returncode == 0, done.stderr
    remedy = f"pip install -c {project / HERE} torchvision"
    assert done.stdout.strip() == str([("torch", "ok", ""), ("torchvision", "missing", remedy)])


def test_all_hints_are_made_in_one_place(project: Path) -> None:
    wrong = [
        f"{file.relative_to(project)}:{number}"
        for file in (project / "contrastive_sr").rglob("*.py")
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if "contrastive-sr[" in line and file.name != "_install.py"
    ]
    assert not wrong, "use contrastive_sr._install.install: " + ", ".join(wrong)
