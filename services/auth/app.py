"""Auth's composition root."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chassis.seeds import read_seed
from chassis.service import Service
from infra.clock import Clock
from infra.passwords import PasswordHasher
from infra.postgres.database import Database
from middleware.chain import Chain
from middleware.identity import Identity
from middleware.token import TokenIssuer, TokenVerifier
from services.auth.companies.http import companies
from services.auth.consumers import CONSUMERS
from services.auth.database import Base
from services.auth.jobs import JOBS
from services.auth.judge import RowsJudge
from services.auth.manifest import MANIFEST
from services.auth.memberships import operations as membership_operations
from services.auth.memberships.http import memberships
from services.auth.permissions import operations as permission_operations
from services.auth.permissions.http import permissions
from services.auth.sessions import operations as session_operations
from services.auth.sessions.http import sessions
from services.auth.settings import AuthSettings
from services.auth.signing_keys import operations as signing_key_operations
from services.auth.signing_keys.operations import KeyRing
from services.auth.users.http import users

_HERE = Path(__file__).parent


def _compose(settings: AuthSettings, database: Database, clock: Clock) -> Mapping[type, Any]:
    keys = KeyRing(database, root=settings.root_key(), cipher=settings.key_cipher(), clock=clock)

    async def session_is_live(identity: Identity) -> bool:
        async with database.unit_of_work() as work:
            return await session_operations.is_live(work, identity)

    audience = {"issuer": settings.token_issuer, "audience": settings.token_audience}
    return {
        AuthSettings: settings,
        PasswordHasher: PasswordHasher(),
        TokenIssuer: TokenIssuer(**audience, lifetime=settings.access_token_lifetime, signing_key=keys.signing_key),
        KeyRing: keys,
        Chain: Chain(
            verifier=TokenVerifier(**audience, key_of=keys.public_key, session_is_live=session_is_live, clock=clock),
            judge=RowsJudge(database),
        ),
    }


service = Service(
    manifest=MANIFEST,
    settings=AuthSettings,
    routers=(users, sessions, companies, memberships, permissions),
    jobs=JOBS,
    compose=_compose,
    migrations=_HERE / "migrations",
    seeds=(
        read_seed(Base.metadata.tables["companies"], _HERE / "companies" / "seed.toml"),
        permission_operations.catalog_seed(),
    ),
    consumers=CONSUMERS,
    republish={
        operations.TOPIC.name: operations.republish
        for operations in (
            membership_operations,
            permission_operations,
            session_operations,
            signing_key_operations,
        )
    },
)
