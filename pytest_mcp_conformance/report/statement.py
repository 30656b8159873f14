"""The JSON report: a statement about one target, made to be read by a program."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.ledger import NO_CHECK_YET, NOT_SELECTED, Ledger, Verdict
from pytest_mcp_conformance.redaction import Secrets
from pytest_mcp_conformance.verdicts import Outcome, worst
from pytest_mcp_conformance.wire import USER_AGENT

BODY_SHOWN_BYTES = 2000
FILE_NAME = "report.json"


def write_statement(directory: Path, statement: dict[str, Any]) -> Path:
    """Write `report.json` into `directory`, which is made when missing.

    Raises:
        OSError: it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / FILE_NAME
    path.write_text(json.dumps(statement, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return path


def make_statement(ledger: Ledger, bench: Bench, exchanges: Iterable[Exchange], not_assessed: str) -> dict[str, Any]:
    """The whole statement, redacted. Lists every requirement of the catalogue, checked or not."""
    settings, target, secrets = bench.settings, bench.target, bench.secrets
    used = {exchange.number for verdict in ledger.verdicts for exchange in _evidence(verdict)}
    spoken = target.spoken if ledger.verdicts else None
    statement = {
        "statement": "mcp-conformance",
        "version": 1,
        "suite": USER_AGENT,
        "made": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "target": {
            "url": settings.target,
            "eras": [] if spoken is None else list(spoken.eras),
            "revisions": [] if spoken is None else sorted(target.revisions),
            "server_info": {} if spoken is None else dict(spoken.server_info),
            "metadata_sha256": _digests(exchanges),
        },
        "profile": settings.profile,
        "seed": settings.seed,
        "requests": bench.probe.ledger.requests,
        "limits": {
            "waited_seconds": round(bench.probe.ledger.waited_seconds, 3),
            "refused": bench.probe.ledger.refused_by_limit,
        },
        "not_contacted": bench.probe.ledger.not_contacted,
        "assessed": ledger.assessed,
        "not_assessed": not_assessed,
        "undecided_musts": ledger.undecided_musts(),
        "counts": {str(outcome): count for outcome, count in ledger.counts().items()},
        "requirements": list(_requirements(ledger, secrets)),
        "waivers": [
            {"id": w.id, "reason": w.reason, "owner": w.owner, "expires": w.expires.isoformat()}
            for w in ledger.waivers.values()
        ],
        "exchanges": {str(e.number): _shown(e, secrets) for e in exchanges if e.number in used},
    }
    redacted: dict[str, Any] = _redacted(statement, secrets)
    return redacted


def _requirements(ledger: Ledger, secrets: Secrets) -> Iterable[dict[str, Any]]:
    verdicts = ledger.by_requirement()
    for known in sorted({*ledger.requirements, *verdicts}):
        requirement = ledger.requirements.get(known)
        entry: dict[str, Any] = {"id": known}
        if requirement is not None:
            entry |= {"title": requirement.title, "level": requirement.level, "severity": requirement.severity}
        if known in verdicts:
            entry["outcome"] = worst(verdict.outcome for verdict in verdicts[known])
            entry["checks"] = [_check(verdict, secrets) for verdict in verdicts[known]]
        else:
            reason = NOT_SELECTED if known in ledger.unselected else NO_CHECK_YET
            entry |= {"outcome": Outcome.NOT_RUN, "reason": reason, "checks": []}
        yield entry


def _check(verdict: Verdict, secrets: Secrets) -> dict[str, Any]:
    shown: dict[str, Any] = {"check": verdict.check, "outcome": verdict.outcome}
    if verdict.reason:
        shown["reason"] = verdict.reason
    finding = verdict.finding
    if finding is not None:
        shown["kind"] = type(finding).__name__
        shown |= {"counterexample": finding.counterexample, "expected": finding.expected, "got": finding.got}
        shown["curl"] = finding.evidence[-1].curl(secrets) if finding.evidence else ""
    shown["evidence"] = sorted({exchange.number for exchange in _evidence(verdict)})
    return shown


def _evidence(verdict: Verdict) -> tuple[Exchange, ...]:
    return verdict.evidence + (() if verdict.finding is None else verdict.finding.evidence)


def _shown(exchange: Exchange, secrets: Secrets) -> dict[str, Any]:
    request = {"method": exchange.request.method, "url": exchange.request.url, "curl": exchange.curl(secrets)}
    if exchange.response is None:
        return {"request": request, "failure": exchange.failure}
    return {
        "request": request,
        "status": exchange.status,
        "headers": [[name, value] for name, value in exchange.response.headers],
        "body": exchange.body[:BODY_SHOWN_BYTES].decode("utf-8", "replace"),
        "body_sha256": hashlib.sha256(exchange.body).hexdigest(),
        "seconds": round(exchange.elapsed_seconds, 4),
    }


def _digests(exchanges: Iterable[Exchange]) -> dict[str, str]:
    return {
        exchange.request.url: hashlib.sha256(exchange.body).hexdigest()
        for exchange in exchanges
        if "/.well-known/" in exchange.request.url and exchange.status == 200 and len(exchange.request.headers) == 1
    }


def _redacted(value: Any, secrets: Secrets) -> Any:
    if isinstance(value, str):
        return secrets.redact(value)
    if isinstance(value, dict):
        return {secrets.redact(str(key)): _redacted(member, secrets) for key, member in value.items()}
    if isinstance(value, list):
        return [_redacted(member, secrets) for member in value]
    return value
