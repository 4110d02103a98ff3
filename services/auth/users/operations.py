from datetime import datetime

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.identifiers import UserId, new_id
from infra.passwords import PasswordHasher
from services.auth.users import rules
from services.auth.users.tables import Credential, User


async def sign_up(
    work: AsyncSession, passwords: PasswordHasher, *, email: str, password: str, display_name: str, now: datetime
) -> User:
    """Create an account. Raises PasswordRefusedError or EmailTakenError."""
    rules.check_password(password, email=email)
    password_hash = await passwords.hash(password)
    user = User(id=new_id(), email=email, email_key=rules.email_key(email), display_name=display_name, created_at=now)
    created = await work.execute(
        insert(User)
        .values(
            id=user.id,
            email=user.email,
            email_key=user.email_key,
            display_name=user.display_name,
            created_at=user.created_at,
        )
        .on_conflict_do_nothing(index_elements=[User.email_key])
        .returning(User.id)
    )
    if created.first() is None:
        raise rules.EmailTakenError
    work.add(Credential(user_id=user.id, password_hash=password_hash))
    return user


async def person(work: AsyncSession, user_id: UserId) -> User:
    """Raises UserUnknownError."""
    user = await work.get(User, user_id)
    if user is None:
        raise rules.UserUnknownError(f"No person has the id {user_id}.")
    return user
