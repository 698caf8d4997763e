"""What the documents say must be so."""

import re
from pathlib import Path

from audit_svc.settings import AuditSettings
from gateway_svc.settings import GatewaySettings

ROOT = Path(__file__).resolve().parent.parent


def test_every_setting_is_in_the_operators_manual_and_no_other():
    manual = (ROOT / "docs" / "operations.md").read_text()
    named = set(re.findall(r"\b(?:GATEWAY|AUDIT)_[A-Z_]+[A-Z]\b", manual))
    fields = {f"GATEWAY_{name}".upper() for name in GatewaySettings.model_fields}
    fields |= {f"AUDIT_{name}".upper() for name in AuditSettings.model_fields}
    assert named == fields


def test_links_between_documents_lead_somewhere():
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
