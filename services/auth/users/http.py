from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import EmailStr, Field, SecretStr

from chassis.request import Caller, Now, Work, component
from chassis.routing import RequestModel, ResponseModel, problem_statuses, router
from infra.passwords import PasswordHasher
from middleware.guards import Public, SignedIn, guard
from services.auth.manifest import MANIFEST
from services.auth.users import operations

users = router(prefix=MANIFEST.route_group, tag="users")


class SignUp(RequestModel):
    email: EmailStr
    password: SecretStr
    display_name: Annotated[str, Field(min_length=1, max_length=200)]


class Person(ResponseModel):
    id: UUID
    email: str
    display_name: str
    created_at: datetime


@users.post("/users", status_code=201, responses=problem_statuses(409, 503))
@guard(Public("nobody has an account before signing up"))
async def sign_up(
    body: SignUp, work: Work, now: Now, passwords: Annotated[PasswordHasher, component(PasswordHasher)]
) -> Person:
    """Create an account."""
    user = await operations.sign_up(
        work,
        passwords,
        email=body.email,
        password=body.password.get_secret_value(),
        display_name=body.display_name,
        now=now,
    )
    return Person.model_validate(user)


@users.get("/me")
@guard(SignedIn())
async def me(caller: Caller, work: Work) -> Person:
    """The signed-in person."""
    return Person.model_validate(await operations.person(work, caller.user_id))
