"""Auth's composition root."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from access.revisions import RevisionWait
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
from services.auth.judge import RowsJudge, versions_in
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
#: Its own revisions are there at once; what Core tells may take a moment, and each look is a query.
_REVISION_PAUSE_SECONDS = 0.05


def _compose(settings: AuthSettings, database: Database, clock: Clock) -> Mapping[type, Any]:
    keys = KeyRing(database, root=settings.root_key(), cipher=settings.key_cipher(), clock=clock)

    async def session_is_live(identity: Identity) -> bool:
        async with database.unit_of_work() as work:
            return await session_operations.is_live(work, identity)

    issuer, audience = settings.token_issuer, settings.token_audience
    lifetime = settings.access_token_lifetime
    verifier = TokenVerifier(
        issuer=issuer, audience=audience, key_of=keys.public_key, session_is_live=session_is_live, clock=clock
    )
    return {
        AuthSettings: settings,
        PasswordHasher: PasswordHasher(),
        TokenIssuer: TokenIssuer(issuer=issuer, audience=audience, lifetime=lifetime, signing_key=keys.signing_key),
        KeyRing: keys,
        Chain: Chain(
            verifier=verifier,
            judge=RowsJudge(database),
            revisions=RevisionWait(versions_in(database), pause_seconds=_REVISION_PAUSE_SECONDS),
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
    sources=lambda components: {
        membership_operations.TOPIC.name: membership_operations,
        permission_operations.TOPIC.name: permission_operations,
        session_operations.TOPIC.name: session_operations,
        signing_key_operations.TOPIC.name: components[KeyRing].source,
    },
)
