"""The text of one finding, the same wherever it is shown."""

from __future__ import annotations

import textwrap

from pytest_mcp_conformance.catalogue import Requirement, source_url
from pytest_mcp_conformance.failures import Finding
from pytest_mcp_conformance.ledger import Verdict
from pytest_mcp_conformance.redaction import Secrets

_WIDTH = 118


def finding_block(
    verdict: Verdict, finding: Finding, requirement: Requirement | None, secrets: Secrets, replay: str
) -> str:
    """Requirement, sources, counterexample, expected against got, `curl`, how to repeat it, remedy. Holds no secret."""
    lines = [f"{verdict.id}  {verdict.outcome}"]
    if requirement is not None:
        lines = [f"{verdict.id}  {requirement.level}  {requirement.severity}  {verdict.outcome}", requirement.title]
    lines += ["", finding.reason]
    facts = [("counterexample", finding.counterexample), ("expected", finding.expected), ("got", finding.got)]
    lines += [f"{name + ':':<16}{secrets.redact(text)}" for name, text in facts if text]
    lines.append(f"{'reproduce:':<16}{finding.evidence[-1].curl(secrets)}" if finding.evidence else "")
    lines.append(f"{'repeat:':<16}{replay}")
    if requirement is not None:
        for source in requirement.sources:
            url = source_url(source)
            lines.append(f"{'source:':<16}{source}" + (f"  {url}" if url else ""))
        if requirement.remedy:
            lines += textwrap.wrap(f"{'remedy:':<16}{requirement.remedy}", _WIDTH, subsequent_indent=" " * 16)
    return secrets.redact("\n".join(lines))
