"""What production installs: all of it pinned by digest, listed in a bill of materials, and needed."""

import json
import re
import subprocess
import sys
import sysconfig
from importlib.metadata import Distribution, distribution
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
SETS = ("runtime", "agent")
COMPOSERS = {"bench", "chaos", "demo", "dev", "embedded", "judge", "replay", "simulation"}
"""Packages of ours that no image needs."""
NOT_IN_PRODUCTION = (
    "faker", "polyfactory", "litestar-htmx", "rich-click", "hypothesis", "pytest", "moto", "flask", "kubernetes-asyncio",
)  # fmt: skip
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)


def asked_for(name: str) -> list[str]:
    lines = (REQUIREMENTS / f"{name}.in").read_text().split()
    return [re.split(r"[=<>\[;]", line)[0] for line in lines]


def pinned(name: str) -> dict[str, str]:
    return dict(PIN.findall((REQUIREMENTS / f"{name}.txt").read_text()))


def modules_of(found: Distribution) -> set[str]:
    """The outermost packages and modules that a distribution installs, below namespaces that it shares with others."""
    files = [
        PurePosixPath(file) for file in found.files or () if file.suffix in {".py", ".so"} or file.name == "py.typed"
    ]
    packages = {file.parent for file in files if file.name == "__init__.py"}
    outer = {package for package in packages if not packages & set(package.parents)}
    single = {file.with_name(file.name.partition(".")[0]) for file in files if len(file.parts) == 1}
    return {".".join(path.parts) for path in outer | single}


def production_code() -> str:
    sources = [
        source
        for folder in ("contracts", "libs", "services")
        for source in sorted((ROOT / folder / "taskyard").rglob("*.py"))
        if source.relative_to(ROOT / folder / "taskyard").parts[0] not in COMPOSERS
    ]
    return "\n".join(source.read_text(encoding="utf-8") for source in sources)


@pytest.mark.parametrize("name", SETS)
def test_production_code_imports_each_package_that_production_asks_for(name: str) -> None:
    code = production_code()
    unused = [
        asked
        for asked in asked_for(name)
        if not any(
            re.search(rf"^\s*(import|from) {re.escape(module)}\b|[\"(]{re.escape(module)}[\").]", code, re.MULTILINE)
            for module in modules_of(distribution(asked))
        )
    ]
    assert unused == []


@pytest.mark.parametrize("name", SETS)
def test_production_installs_no_makers_of_test_data_and_no_clients_that_it_does_not_use(name: str) -> None:
    assert set(pinned(name)) & set(NOT_IN_PRODUCTION) == set()


def test_the_services_do_without_what_their_packages_ask_for_and_do_not_use() -> None:
    missing = [distribution(one) for one in NOT_IN_PRODUCTION[:4]]
    names = sorted(module for found in missing for module in modules_of(found))
    assert {"faker", "polyfactory"} <= set(names)
    services = ("api", "dispatcher", "scheduler", "slot_allocator", "state_projector", "cli", "agent")
    program = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({names!r}))
for service in {services!r}:
    package = importlib.import_module("taskyard." + service)
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", SETS)
def test_each_package_of_production_is_pinned_by_digests(name: str) -> None:
    entries = [entry for entry in (REQUIREMENTS / f"{name}.txt").read_text().split("\n") if "==" in entry]
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    for entry in entries:
        assert text[text.index(entry) :].split("\n", 2)[1].strip().startswith("--hash=sha256:"), entry


def test_images_install_what_is_pinned_and_nothing_else() -> None:
    for file in ("Dockerfile", "agent.Dockerfile"):
        installs = re.findall(r"pip install ([^\n]*)", (ROOT / "deploy" / file).read_text())
        assert installs
        assert all("--no-deps" in line and "--require-hashes" in line for line in installs), file


@pytest.mark.parametrize("name", SETS)
def test_the_bill_of_materials_names_each_package_with_version_and_digests(name: str, tmp_path: Path) -> None:
    recipe = (ROOT / "justfile").read_text()
    assert 'cyclonedx-py requirements "requirements/$name.txt" --output-format JSON' in recipe
    bill = tmp_path / "bill.json"
    program = Path(sysconfig.get_path("scripts")) / "cyclonedx-py"
    options = ("--output-format", "JSON", "--output-reproducible", "--output-file", str(bill))
    subprocess.run(
        [program, "requirements", str(REQUIREMENTS / f"{name}.txt"), *options],
        check=True,
        capture_output=True,
        timeout=60,
    )
    content = json.loads(bill.read_text())
    assert content["bomFormat"] == "CycloneDX"
    assert {one["name"]: one["version"] for one in content["components"]} == pinned(name)
    for one in content["components"]:
        digests = [digest for reference in one["externalReferences"] for digest in reference.get("hashes", ())]
        assert any(digest["alg"] == "SHA-256" for digest in digests), one["name"]
