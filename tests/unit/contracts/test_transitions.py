import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Kind
from contracts.transitions import IllegalMoveError, Move, StateMachine

DOOR = StateMachine(
    (
        Move("open", frozenset({"closed"}), "opened"),
        Move("close", frozenset({"opened"}), "closed"),
        Move("lock", frozenset({"closed"}), "locked"),
        Move("break", frozenset({"closed", "locked", "opened"}), "broken"),
    )
)


def test_a_move_leads_where_it_says() -> None:
    assert DOOR.move("closed", "open") == "opened"
    assert DOOR.move("locked", "break") == "broken"


def test_an_illegal_move_names_the_state_the_move_and_what_is_allowed() -> None:
    with pytest.raises(IllegalMoveError, match=r"open cannot be done in the state opened; .*: close, break") as refused:
        DOOR.move("opened", "open")
    assert refused.value.facts == {"state": "opened", "move": "open", "allowed": ("close", "break")}
    assert (refused.value.kind, refused.value.code) == (Kind.CONFLICT, "illegal_move")
    with pytest.raises(IllegalMoveError, match="nothing"):
        DOOR.move("broken", "close")


def test_a_move_there_is_not_is_a_defect() -> None:
    with pytest.raises(KeyError):
        DOOR.move("closed", "paint")


@pytest.mark.parametrize(
    "moves",
    [(Move("open", frozenset[str](), "opened"),), (Move("open", frozenset({"a"}), "b"),) * 2],
    ids=["from nowhere", "twice"],
)
def test_a_machine_that_contradicts_itself_is_not_built(moves: tuple[Move[str], ...]) -> None:
    with pytest.raises(ValueError, match="open"):
        StateMachine(moves)


@given(st.sampled_from(["opened", "closed", "locked", "broken"]), st.sampled_from(["open", "close", "lock", "break"]))
def test_what_is_allowed_is_what_can_be_done(state: str, name: str) -> None:
    try:
        reached = DOOR.move(state, name)
    except IllegalMoveError:
        assert name not in DOOR.allowed(state)
    else:
        assert name in DOOR.allowed(state)
        assert reached == DOOR.moves[name].target
