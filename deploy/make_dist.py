"""Builds both distributions, wheels and source archives, and checks them as who installs them finds them.

Usage: make_dist.py FOLDER, with the interpreter of an environment that has the extra `deploy`. What is checked:

- a wheel built from a source archive holds, byte for byte, what a wheel built from this tree holds;
- each file that git has of a package, and nothing else, is in one wheel, and in one alone;
- the metadata are valid, the versions agree, licence and README are there;
- in an empty environment both install at the versions of constraints.txt, need nothing that is missing, and every
  program says the version.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

from packaging.metadata import Metadata

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECTS = {"onrecord": REPOSITORY, "onrecord-client": REPOSITORY / "clients/python"}
PROGRAMS = ("onrecord", "audit-svc", "gateway-svc", "intake-svc")
USAGES = ("onrecord-hook", "onrecord-send")
"""Programs without a version, which say how they are used."""
PIP = {"PIP_CONSTRAINT": str(REPOSITORY / "constraints.txt"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
NOT_CARRIED = ("README.md", ".yaml", ".binpb", ".gitignore", "generate.py")
"""Ends of names of files in packages that nobody needs who has installed them."""


def run(*command: str | Path, cwd: Path = REPOSITORY) -> str:
    """What a program prints. Raises SystemExit with its stderr where it fails."""
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **PIP}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def build(folder: Path, project: Path) -> tuple[Path, Path]:
    """The source archive, and the wheel that is built from it."""
    with tempfile.TemporaryDirectory() as made:
        run(sys.executable, "-m", "build", "--outdir", made, project)
        moved = [Path(shutil.move(path, folder / path.name)) for path in Path(made).iterdir()]
    (archive,), (wheel,) = ([path for path in moved if path.name.endswith(end)] for end in (".tar.gz", ".whl"))
    return archive, wheel


def project_of(folder: Path) -> dict[str, Any]:
    """What a folder's pyproject.toml says."""
    return tomllib.loads((folder / "pyproject.toml").read_text())


def contents(wheel: Path) -> dict[str, bytes]:
    """The files in a wheel by name, without the list of them."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def check_source(project: Path, wheel: Path) -> None:
    """Checks that the wheel from the source archive is the one of the tree."""
    with tempfile.TemporaryDirectory() as made:
        run(sys.executable, "-m", "build", "--wheel", "--outdir", made, project)
        (direct,) = Path(made).iterdir()
        ours, theirs = contents(wheel), contents(direct)
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    require(not differing, f"{wheel.name}: the wheel from the source archive differs in {differing[:5]}")


def check_metadata(name: str, wheel: Path, archive: Path, version: str) -> None:
    """Checks the metadata of a wheel and of a source archive."""
    files = contents(wheel)
    folder = f"{name.replace('-', '_')}-{version}"
    told = Metadata.from_email(files[f"{folder}.dist-info/METADATA"])
    require((told.name, str(told.version)) == (name, version), f"{wheel.name} says {told.name} {told.version}")
    require(bool(told.description), f"{wheel.name} has no README")
    require(f"{folder}.dist-info/licenses/LICENSE" in files, f"{wheel.name} has no licence")
    with tarfile.open(archive) as packed:
        members = packed.getmembers()
    others = [m.name for m in members if not (m.isfile() and m.name.startswith(f"{folder}/"))]
    require(not others, f"{archive.name} has other than files of its own: {others[:5]}")
    wrong = [m.name for m in members if Path(m.name).suffix in (".pem", ".key", ".db") or "__pycache__" in m.name]
    require(not wrong, f"{archive.name} holds {wrong[:5]}")


def check_contents(wheels: dict[str, Path]) -> None:
    """Checks that each file of a package that git knows is in one wheel, and nothing else."""
    carried = {name: {f for f in contents(wheel) if ".dist-info/" not in f} for name, wheel in wheels.items()}
    twice = set.intersection(*carried.values())
    require(not twice, f"in both wheels: {sorted(twice)[:5]}")
    folders = project_of(REPOSITORY)["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    known = {
        **{folder: (folder, folder) for folder in folders},
        "recording": ("recording", "recording"),
        "client": ("clients/python/lib/onrecord/client", "onrecord/client"),
        "protos": ("protos/onrecord", "onrecord"),
    }
    wanted = set()
    for source, place in known.values():
        for path in run("git", "ls-files", source).split():
            if not path.endswith(NOT_CARRIED):
                wanted.add(path.replace(source, place, 1))
    missing, more = wanted - set.union(*carried.values()), set.union(*carried.values()) - wanted
    require(not missing, f"in no wheel: {sorted(missing)[:5]}")
    require(not more, f"in a wheel, and not in git: {sorted(more)[:5]}")


def check_install(wheels: dict[str, Path], version: str) -> None:
    """Installs the wheels as a user does, and has each program say what it is."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=False)
        python = Path(folder, "bin/python")
        client = f"{wheels['onrecord-client']}[grpc]"
        run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", client, wheels["onrecord"])
        run(sys.executable, "-m", "pip", "--python", python, "check")
        for program in PROGRAMS:
            said = run(python.with_name(program), "--version", cwd=Path(folder)).strip()
            require(said == f"{program} {version}", f"{program} --version says {said!r}")
        for program in USAGES:
            run(python.with_name(program), "--help", cwd=Path(folder))


def require(holds: bool, otherwise: str) -> None:
    """Raises SystemExit where it does not hold."""
    if not holds:
        raise SystemExit(otherwise)


def main() -> None:
    """Builds and checks."""
    folder = Path(sys.argv[1]).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    versions = {project_of(path)["project"]["version"] for path in PROJECTS.values()}
    require(len(versions) == 1, f"two versions: {sorted(versions)}")
    (version,) = versions
    wheels = {}
    for name, project in PROJECTS.items():
        archive, wheels[name] = build(folder, project)
        check_source(project, wheels[name])
        check_metadata(name, wheels[name], archive, version)
    check_contents(wheels)
    check_install(wheels, version)
    for path in sorted(folder.iterdir()):
        print(f"{path.name}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
