"""Judges an attack by seven points.

1. the status is one of those that the shot allows; 2. the downstream app is not called (or called once, where that is
right); 3. the audit holds exactly one new record, with an outcome and a reason; 4. no 5xx but a 503 with
`Retry-After`; 5. a good request still succeeds afterwards; 6. the answer comes within the bound; 7. no secret is in a
log or the audit.
"""

import time

from tests.guard.attacks.corpus import Attack, Shot
from tests.guard.attacks.deployment import Capture, Deployment
from tests.guard.attacks.raw import Observation


def judge(attack: Attack, deployment: Deployment, log: Capture) -> int:
    """Fire every shot of the attack and judge each. Answers how many there were.

    Raises:
        AssertionError: naming the attack, the shot and the point that does not hold.
    """
    control(deployment, f"{attack.id}: before")
    fired = 0
    for shot in attack.shots(deployment):
        fire(shot, deployment, f"{attack.id}/{shot.name}")
        control(deployment, f"{attack.id}/{shot.name}: 5. afterwards")
        fired += 1
    assert fired, f"{attack.id}: no shot was fired"
    no_secret_is_written(attack.id, deployment, log)
    return fired


def fire(shot: Shot, deployment: Deployment, name: str) -> Observation:
    """Fire one shot and judge it by the points that concern it alone."""
    calls, records = deployment.downstream.calls, len(deployment.audit.lines)
    began = time.monotonic()
    seen = deployment.send(shot.request)
    took = time.monotonic() - began
    assert seen.status in shot.statuses, f"{name}: 1. answered {seen.status} {seen.body[:300]!r}"
    called = deployment.downstream.calls - calls
    reached = shot.reaches_app and seen.status == 200
    assert called == reached, f"{name}: 2. the app was called {called} times"
    audited(seen, deployment, records, name, allowed=reached)
    if seen.status >= 500 and not of_the_server(seen, deployment, records):
        assert seen.status == 503, f"{name}: 4. answered {seen.status}"
        assert seen.value("retry-after"), f"{name}: 4. a 503 without Retry-After"
    assert took < shot.time_bound_seconds, f"{name}: 6. took {took:.2f} s"
    if shot.check is not None:
        shot.check(seen)
    return seen


def audited(seen: Observation, deployment: Deployment, before: int, name: str, *, allowed: bool) -> None:
    """Point 3. What the server below refuses by itself never reaches the guard, and has no JSON body of ours."""
    new = deployment.audit.records()[before:]
    if (
        not new
        and seen.status in (400, 405, 431, 499, 501)
        and not seen.value("content-type").startswith("application/json")
    ):
        return
    assert len(new) == 1, f"{name}: 3. {len(new)} audit records"
    record = new[0]
    if allowed:
        assert record["verdict"] == "allowed", f"{name}: 3. audited as {record['verdict']}"
    elif seen.status >= 400:
        assert record["verdict"] != "allowed", f"{name}: 3. audited as allowed"
        assert record["reason"], f"{name}: 3. audited without a reason"


def of_the_server(seen: Observation, deployment: Deployment, before: int) -> bool:
    """Whether the answer is the server's alone: the guard was told that its client is gone, or was never asked."""
    verdicts = [record["verdict"] for record in deployment.audit.records()[before:]]
    return verdicts == ["aborted"] or (seen.status == 501 and not verdicts)


def control(deployment: Deployment, name: str) -> None:
    """A good request succeeds."""
    seen = deployment.send(deployment.call(deployment.token()))
    assert seen.status == 200, f"{name}: a good request is answered {seen.status} {seen.body[:300]!r}"
    assert b"alice" in seen.body, f"{name}: a good request is not answered as its user: {seen.body[:300]!r}"


def no_secret_is_written(name: str, deployment: Deployment, log: Capture) -> None:
    """Point 7. Of a token, no segment is written either. What was searched before holds no secret that is newer."""
    logged, audited = len(log.lines), len(deployment.audit.lines)
    written = log.lines[log.searched : logged]
    written += [line.decode() for line in deployment.audit.lines[deployment.searched : audited]]
    parts = {part for secret in deployment.secrets for part in (secret, *secret.split(".")) if len(part) > 16}
    for part in parts:
        leaks = [line.partition(":")[0] for line in written if part in line]
        assert not leaks, f"{name}: 7. a secret is in a log, {part[:6]}…, written by {leaks[:3]}"
    log.searched, deployment.searched = logged, audited
