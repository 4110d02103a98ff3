import pytest

from access.records import Scope
from access.scopes import first_outside
from contracts.identifiers import new_id
from contracts.money import Money
from services.finance.approvals.rules import FourEyesError, check_four_eyes, limit_needed

CREATOR, SUBMITTER, OTHER = new_id(), new_id(), new_id()


def test_whoever_is_not_involved_decides() -> None:
    check_four_eyes(OTHER, CREATOR, SUBMITTER)
    check_four_eyes(OTHER, CREATOR, None)
    for involved in (CREATOR, SUBMITTER):
        with pytest.raises(FourEyesError):
            check_four_eyes(involved, CREATOR, SUBMITTER)


@pytest.mark.parametrize(
    ("limits", "amount", "outside"),
    [
        (("USD:500000",), Money(500000, "USD"), None),
        (("USD:500000",), Money(500001, "USD"), "approval_limit"),
        (("USD:500000",), Money(1, "EUR"), "approval_limit"),
        (("USD:500000", "EUR:2"), Money(2, "EUR"), None),
        (("USD:1", "USD:10"), Money(10, "USD"), None),
        ("*", Money(2**53 - 1, "USD"), None),
        ((), Money(1, "USD"), "approval_limit"),
        (("BHD:1500",), Money.parse("1.500", "BHD"), None),
        (("JPY:1500",), Money.parse("1501", "JPY"), "approval_limit"),
    ],
)
def test_the_limit_an_amount_needs_is_what_a_grant_is_judged_by(
    limits: Scope, amount: Money, outside: str | None
) -> None:
    needed = {"approval_limit": limit_needed(amount)}
    assert first_outside({"approval_limit": limits}, ("approval_limit",), needed) == outside
