"""The body of every refusal: RFC 9457 problem details with the failing layer, and what would help (design §5)."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, StringConstraints, model_serializer

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"


class Reason(StrEnum):
    """Why a decision said no, in the order in which the layers are judged; the first that fails is the reason."""

    NOT_A_MEMBER = "not_a_member"
    MEMBERSHIP_INACTIVE = "membership_inactive"
    BASE_INACTIVE = "base_inactive"
    MODULE_NOT_ENTITLED = "module_not_entitled"
    CAPABILITY_MISSING = "capability_missing"
    MODULE_NOT_GRANTED = "module_not_granted"
    PERMISSION_MISSING = "permission_missing"
    OUT_OF_SCOPE = "out_of_scope"
    #: No layer failed: there is no state fresh enough to judge by. 503, never 403.
    STATE_UNKNOWN = "state_unknown"


class ProblemCode(StrEnum):
    """Codes the platform itself gives. A refused decision has its Reason as code, a DomainError its own."""

    INVALID_REQUEST = "invalid_request"
    TOKEN_MISSING = "token_missing"  # noqa: S105 - a code, not a secret
    TOKEN_INVALID = "token_invalid"  # noqa: S105 - a code, not a secret
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a code, not a secret
    COMPANY_HEADER_MISSING = "company_header_missing"
    COMPANY_HEADER_INVALID = "company_header_invalid"
    REVISION_MALFORMED = "revision_malformed"
    REVISION_FOREIGN = "revision_foreign"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    BODY_TOO_LARGE = "body_too_large"
    CURSOR_INVALID = "cursor_invalid"
    SORT_UNKNOWN = "sort_unknown"
    ILLEGAL_MOVE = "illegal_move"
    VERSION_MISMATCH = "version_mismatch"
    PRECONDITION_REQUIRED = "precondition_required"
    ENTITY_TAG_MALFORMED = "entity_tag_malformed"
    IDEMPOTENCY_KEY_MISSING = "idempotency_key_missing"
    IDEMPOTENCY_KEY_MALFORMED = "idempotency_key_malformed"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    FILE_NOT_WHAT_IT_SAYS = "file_not_what_it_says"
    UPLOAD_EXPIRED = "upload_expired"
    ROWS_REFUSED = "rows_refused"
    TOO_MANY_REQUESTS = "too_many_requests"
    DEPENDENCY_UNAVAILABLE = "dependency_unavailable"
    INTERNAL_ERROR = "internal_error"


class FixAction(StrEnum):
    """What would turn this refusal into a yes."""

    BUY_BASE = "buy_base"
    BUY_ADDON = "buy_addon"
    ASK_MODULE = "ask_module"
    ASK_PERMISSION = "ask_permission"
    ASK_SCOPE = "ask_scope"
    SIGN_IN = "sign_in"
    RETRY = "retry"


class FixBy(StrEnum):
    """Who can do it."""

    CALLER = "caller"
    #: A TENANT_SUPERADMIN of the company, or who holds a delegation over it.
    COMPANY_ADMIN = "company_admin"
    PLATFORM_ADMIN = "platform_admin"


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _present_fields(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialise(self).items() if value is not None}


class Fix(_Body):
    """The next step. `url` is where it is done, absent where the caller has to ask a person."""

    action: FixAction
    by: FixBy
    url: str | None = None


class FieldFault(_Body):
    """One value that was refused: where it stands (JSON pointer, RFC 6901), the rule, and the rule in words."""

    pointer: str
    rule: str
    detail: str


class Problem(_Body):
    """A problem body. Absent fields are left out when it is written."""

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str | None = None
    code: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
    module: str | None = None
    permission: str | None = None
    #: The approval limit that would do, "USD:120050" in minor units, where the caller has none as high.
    limit: str | None = None
    fix: Fix | None = None
    #: The access state judged by: topic:key:epoch:version, several separated by commas.
    revision: str | None = None
    #: How old that state was when it was judged.
    age_seconds: float | None = None
    request_id: str | None = None
    errors: tuple[FieldFault, ...] | None = None


def problem_type(code: str) -> str:
    """The `type` URI of a code: a name, not an address to open."""
    return f"urn:kisum:problem:{code}"
