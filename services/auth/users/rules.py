"""Who may have an account, and with which password."""

from typing import Final

from contracts.errors import DomainError, Kind

PASSWORD_LENGTH_MIN: Final = 12
#: Long passphrases are welcome; Argon2 work on megabytes is not.
PASSWORD_LENGTH_MAX: Final = 128


class EmailTakenError(DomainError):
    kind = Kind.CONFLICT
    code = "email_taken"
    title = "There is an account with this mail address"
    pointer = "/email"

    def __init__(self) -> None:
        super().__init__("Sign in instead, or use another address.")


class PasswordRefusedError(DomainError):
    kind = Kind.INVALID
    code = "password_refused"
    title = "This password cannot be used"
    pointer = "/password"


class UserUnknownError(DomainError):
    kind = Kind.NOT_FOUND
    code = "user_unknown"
    title = "There is no such person"


def email_key(email: str) -> str:
    """What makes two mail addresses the same account: everything but upper and lower case."""
    return email.strip().casefold()


def check_password(password: str, *, email: str) -> None:
    """Length, and not the address itself; no rules of composition (NIST SP 800-63B). Raises PasswordRefusedError."""
    if len(password) < PASSWORD_LENGTH_MIN:
        raise PasswordRefusedError(f"Use at least {PASSWORD_LENGTH_MIN} characters.")
    if len(password) > PASSWORD_LENGTH_MAX:
        raise PasswordRefusedError(f"Use at most {PASSWORD_LENGTH_MAX} characters.")
    key = email_key(email)
    if password.casefold() in {key, key.partition("@")[0]}:
        raise PasswordRefusedError("Do not use the mail address as the password.")
