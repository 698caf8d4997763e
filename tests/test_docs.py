"""What the documents say must be so."""

import functools
import re
from pathlib import Path
from typing import Any

from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.settings import AuditSettings
from gateway_svc.engines.kinds import engine_kinds
from gateway_svc.settings import GatewaySettings
from gateway_svc.tools.jail.sandbox import JailSettings
from gateway_svc.tools.kinds import kinds
from intake_svc.settings import IntakeSettings
from service_kit import bounds
from service_kit.settings import variables
from tests.faults.campaigns import CAMPAIGNS, POSTGRES_CAMPAIGNS

ROOT = Path(__file__).resolve().parent.parent


def test_every_setting_is_in_the_operators_manual_and_no_other():
    pages = [ROOT / "docs" / "operations.md", *(ROOT / "docs" / "engines").glob("*.md")]
    manual = "\n".join(page.read_text() for page in pages)
    named = set(re.findall(r"\b(?:GATEWAY|AUDIT|INTAKE)_[A-Z_]+[A-Z]\b", manual))
    fields = variables(GatewaySettings) | variables(AuditSettings) | variables(IntakeSettings)
    parts = [kind.settings for kind in engine_kinds()] + [kind.settings for kind in kinds().values()] + [JailSettings]
    for part in parts:
        fields |= variables(part)
    assert named == fields


def test_every_bound_is_in_the_manual_with_its_figure_and_no_other():
    """Rows are such as: | `one`, `two`: what they bound | 256 MiB; 2,048 |"""
    units = {"": 1, "Ki": 2**10, "KiB": 2**10, "Mi": 2**20, "MiB": 2**20}
    told: dict[str, int] = {}
    for names, figures in re.findall(
        r"^\| (`[a-z_`, ]+): [^|]*\| ([^|]+) \|$", (ROOT / "docs/security.md").read_text(), re.MULTILINE
    ):
        if figures != "as above":
            numbers = [figure.strip().partition(" ") for figure in figures.split(";")]
            limits = [int(number.replace(",", "")) * units[unit] for number, _, unit in numbers]
            told |= dict(zip(re.findall(r"`(\w+)`", names), limits, strict=True))
    assert told == {bound.name: bound.limit for bound in vars(bounds).values() if isinstance(bound, bounds.Bound)}


def test_links_between_documents_lead_somewhere():
    folders = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
    for document in [*ROOT.glob("*.md"), *(path for folder in folders for path in folder.rglob("*.md"))]:
        if "node_modules" in document.parts:
            continue
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_nobody_is_told_to_install_from_an_index_what_is_on_none():
    told = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "clients").glob("*/*.md")]
    told += [
        path
        for folder in ("audit_svc", "gateway_svc", "intake_svc", "onrecord_cli", "recording", "service_kit")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert [
        path.name
        for path in told
        if re.search(r"pip install (-\S+ )*['\"]?onrecord(-client)?(\[[a-z,]+\])?['\"`\s)]", path.read_text())
    ] == []


def test_each_line_of_who_can_say_what_about_whom_is_shown_by_a_test_that_is_there():
    manual = (ROOT / "docs" / "security.md").read_text().partition("### Who can say what about whom")[2]
    cells = [line.split(" | ")[-1] for line in manual.partition("\n### ")[0].splitlines() if line.startswith("| ")][1:]
    assert cells
    for cell in cells:
        named = set(re.findall(r"`(test_\w+)`", cell))
        assert named, f"no test shows {cell}"
        assert named <= names_of_tests()


def test_each_field_of_the_rows_is_in_the_table_of_evidence_and_each_line_names_a_test_that_is_there():
    page = (ROOT / "docs" / "evidence.md").read_text()
    rows: list[Any] = [
        audit_pb2.AuditRow,
        audit_pb2.CostRow,
        audit_pb2.SessionRow,
        audit_pb2.ControlRow,
        questions_pb2.Receipt,
    ]
    parts: list[Any] = [common_pb2.Decision, common_pb2.Software, common_pb2.ArgsDigest]
    fields = {f"{kind.DESCRIPTOR.name}.{field.name}" for kind in [*rows, *parts] for field in kind.DESCRIPTOR.fields}
    table = page.partition("## From fields to demands")[2].partition("\n## ")[0]
    assert set(re.findall(r"`([A-Z]\w+\.\w+)`", table)) == fields
    lines = [
        line for line in table.splitlines() if line.startswith("| ") and not line.startswith(("| field", "| demand"))
    ]
    tests = names_of_tests()
    for line in lines:
        named = set(re.findall(r"`(test_\w+)`", line.split(" | ")[-1]))
        assert named, f"no test shows {line}"
        assert named <= tests, line
    assert "compliant" not in page


def test_each_demand_that_the_table_of_evidence_names_is_among_those_that_the_page_explains():
    page = (ROOT / "docs" / "evidence.md").read_text()
    head, _, rest = page.partition("## From fields to demands")
    explained = set(re.findall(r"^\| ([^|]+?) \|", head, re.MULTILINE)) - {"short", "---"}
    demand = r"(?:AISVS )?\d+\.\d+\.\d+|PCI \d+\.\d+(?:\.\d+)?|Art\. \d+(?:\(\d\))?|CC\d\.\d|A\.\d\.\d\.\d"
    cells = [line.split(" | ")[2] for line in rest.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    named = {found for cell in cells for found in re.findall(demand, cell)}
    assert named
    for one in named:
        assert one in explained or f"AISVS {one}" in explained, one
    assert {one for one in explained if one not in rest and one.removeprefix("AISVS ") not in rest} == set()


@functools.cache
def names_of_tests() -> set[str]:
    return {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }


def test_each_fault_is_shown_by_a_test_or_a_campaign_that_is_there():
    parts = [(ROOT / "docs" / name).read_text().partition("## Faults")[2] for name in ("operations.md", "replicas.md")]
    lines = [line for part in parts for line in part.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    cells = [line.split(" | ")[-1] for line in lines if not line.endswith("| shown by |")]
    tests = names_of_tests()
    campaigns = {campaign.name for campaign in (*CAMPAIGNS, *POSTGRES_CAMPAIGNS)}
    assert len(cells) >= 20
    for cell in cells:
        shown = [*re.findall(r"`(test_\w+)`", cell), *re.findall(r"\*([^*]+)\*", cell)]
        assert shown, f"nothing shows: {cell}"
        assert set(shown) <= tests | campaigns, cell
    assert campaigns <= set(re.findall(r"\*([^*]+)\*", " ".join(cells))), "a campaign that no line names"


def test_pre_commit_runs_the_commands_of_make_check():
    check = (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    commands = re.findall(r"\$\(BIN\)/(\w[\w-]*(?: [\w/.-]+)?)", check)
    assert len(commands) >= 8
    for command in commands:
        assert f".venv/bin/{command.removesuffix(' .').replace('ruff format --check', 'ruff format')}" in hooks, command


def test_each_path_that_a_document_for_contributors_names_is_there():
    documents = [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), ROOT / "docs" / "architecture.md"]
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    for document in documents:
        for path in re.findall(r"`([\w-]+/[\w./-]*)`", document.read_text()):
            if path.split("/")[0] in folders and not path.startswith("deploy/secrets"):
                assert (ROOT / path).exists(), f"{document.name} names {path}"
