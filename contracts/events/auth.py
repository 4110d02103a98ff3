"""What Auth publishes: memberships with their grants, the state of permission rows, keys, sessions, its heartbeat."""

import json
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import StringConstraints

from contracts.events.heartbeat import Heartbeat
from contracts.identifiers import CompanyId, UserId
from contracts.payload import Count, Instant, OpaqueId, OpenStatus, Part, Payload, PermissionKey, Slug

#: Per scope type "*" or the ids within it. An empty list and an absent type both mean nothing.
Scopes = dict[Slug, Literal["*"] | tuple[OpaqueId, ...]]
#: Raw bytes in base64url without padding.
PublicKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
Signature = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{86}$")]


class MembershipStatus(OpenStatus):
    """Only `active` gives access. A removed membership keeps its key and version when the person comes back."""

    INVITED = "invited"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REMOVED = "removed"
    #: Published in place of a state that could not be: readers answer 503 for the person.
    UNKNOWN = "unknown"


class PermissionStatus(OpenStatus):
    """A deprecated row is not granted any more; with an alias it gives what its alias gives."""

    ACTIVE = "active"
    DEPRECATED = "deprecated"
    REMOVED = "removed"
    UNKNOWN = "unknown"


class SigningKeyStatus(OpenStatus):
    """A retired key signs no more, its tokens are good until they end; a revoked key's tokens are void."""

    ACTIVE = "active"
    RETIRED = "retired"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


class ModuleGrant(Part):
    """A module granted to a membership: its permissions, and the scopes that bound them."""

    key: Slug
    #: Until when each is valid, exclusive; none is without end.
    permissions: dict[PermissionKey, Instant | None]
    scopes: Scopes


class Delegation(Part):
    """What the member may grant to others."""

    module: Slug
    permissions: Literal["*"] | tuple[PermissionKey, ...]
    scopes: Scopes
    #: Whether the member may pass the delegation itself on.
    may_delegate: bool
    valid_until: Instant | None


class GrantChanged(Payload):
    """All a person is and may do in one company. Replaces what was known of the membership."""

    event_type: ClassVar[str] = "auth.grant-changed.v1"

    user_id: UserId
    status: MembershipStatus
    superadmin: bool
    modules: tuple[ModuleGrant, ...]
    delegations: tuple[Delegation, ...]

    def aggregate_id(self, company_id: CompanyId) -> str:
        """The company and the person, separated by a slash."""
        return f"{company_id}/{self.user_id}"


class PermissionState(Part):
    """The state of one row; what it means otherwise is in contracts.permissions."""

    key: PermissionKey
    status: PermissionStatus
    alias_of: PermissionKey | None


class PermissionsChanged(Payload):
    """The state of all permission rows of a module."""

    event_type: ClassVar[str] = "auth.permissions-changed.v1"

    module: Slug
    permissions: tuple[PermissionState, ...]

    def aggregate_id(self, company_id: CompanyId) -> str:  # noqa: ARG002 - belongs to no company
        """The module."""
        return self.module


class SigningKeyChanged(Payload):
    """A key that signs access tokens."""

    event_type: ClassVar[str] = "auth.signing-key-changed.v1"

    kid: OpaqueId
    algorithm: Literal["EdDSA"]
    public_key: PublicKey
    not_before: Instant
    not_after: Instant
    status: SigningKeyStatus
    #: Of the root key, over `signed_bytes`.
    signature: Signature

    def aggregate_id(self, company_id: CompanyId) -> str:  # noqa: ARG002 - belongs to no company
        """The key id."""
        return self.kid

    def signed_bytes(self) -> bytes:
        """What the root key signs: the other fields of this version, as JSON with sorted names and no spaces."""
        signed = self.model_dump(mode="json", exclude={"signature"})
        return json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()


class RevokedSession(Part):
    """A session that is over before its tokens are. Kept until the last of them has expired."""

    sid: UUID
    until: Instant


class SessionsChanged(Payload):
    """Which of a person's tokens are void: those of a generation below `min_gen`, and those of a revoked session."""

    event_type: ClassVar[str] = "auth.sessions-changed.v1"

    user_id: UserId
    min_gen: Count
    revoked: tuple[RevokedSession, ...]

    def aggregate_id(self, company_id: CompanyId) -> str:  # noqa: ARG002 - belongs to no company
        """The person."""
        return str(self.user_id)


class AuthHeartbeatSent(Heartbeat):
    """Auth's heartbeat."""

    event_type: ClassVar[str] = "auth.heartbeat-sent.v1"
