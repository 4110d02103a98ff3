from datetime import UTC, datetime, timedelta
from uuid import uuid4

from services.auth.sessions import rules

NOW = datetime(2026, 5, 21, 9, tzinfo=UTC)


def test_an_ended_session_is_told_until_its_last_token_has_ended() -> None:
    session_id = uuid4()
    told = rules.revocations([(session_id, NOW)], 1, NOW + timedelta(minutes=9, seconds=59))
    assert [(each.sid, each.until) for each in told.revoked] == [(session_id, NOW + timedelta(minutes=10))]
    assert rules.revocations([(session_id, NOW)], 1, NOW + timedelta(minutes=10)).revoked == ()


def test_too_many_sessions_to_tell_are_told_by_a_new_generation() -> None:
    ended = [(uuid4(), NOW) for _ in range(rules.REVOKED_SESSIONS_MAX + 1)]
    assert rules.revocations(ended[:-1], 1, NOW).generation == 1
    assert rules.revocations(ended, 1, NOW) == rules.Revocations(2, ())
