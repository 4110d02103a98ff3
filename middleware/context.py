"""What the chain leaves for a handler: who acts in which company, and on which objects."""

from collections.abc import Mapping

from access.decision import Decision, Requirement
from access.freshness import SECOND
from access.records import Grant
from access.scopes import LIMIT_TYPES, ScopeFilter, ScopeValue, filter_of, first_outside
from contracts.identifiers import CompanyId, UserId
from contracts.problems import Reason
from middleware.guards import NoScope, ScopeSource
from middleware.identity import Identity
from middleware.refusals import FixUrls, refusal, revision_of


class AccessContext:
    """An allowed request. Unless the route names that it has no scope, its object or query is still to be judged."""

    __slots__ = ("_decision", "_fix_urls", "_identity", "_judged", "_source", "company_id", "requirement")

    def __init__(
        self,
        decision: Decision,
        *,
        identity: Identity,
        company_id: CompanyId,
        requirement: Requirement | None = None,
        source: ScopeSource | NoScope | None = None,
        fix_urls: FixUrls,
    ) -> None:
        """Made by the chain; `requirement` and `source` are None for a guard that is no permission row."""
        self.company_id = company_id
        self.requirement = requirement
        self._identity = identity
        self._decision = decision
        self._source = source
        self._fix_urls = fix_urls
        self._judged = not isinstance(source, ScopeSource)

    @property
    def user_id(self) -> UserId:
        """Who acts."""
        return self._identity.user_id

    @property
    def superadmin(self) -> bool:
        """A TENANT_SUPERADMIN of the company. It serves guard T and opens no module."""
        membership = self._decision.membership
        return membership is not None and membership.superadmin

    @property
    def revision(self) -> str | None:
        """The states the request was judged by: topic:key:epoch:version, separated by commas."""
        return revision_of(self._decision, str(self.company_id), self._identity.user_text)

    @property
    def age_seconds(self) -> float | None:
        """How old those states were."""
        return None if self._decision.age_us is None else self._decision.age_us / SECOND

    @property
    def is_scope_judged(self) -> bool:
        """Whether the route's object, body or query was judged. An answer before that is a defect of the route."""
        return self._judged

    def require_scope(self, values: Mapping[str, ScopeValue]) -> None:
        """Refuse an object with these scope values unless the grant reaches it. Raises OutOfScopeError.

        A value of None, or none at all, is outside of every restricted type.
        """
        requirement, grant = self._permission()
        self._judged = True
        outside = first_outside(grant.scopes(), requirement.scope_types, values)
        if outside is None:
            return
        value = values.get(outside)
        raise refusal(
            self._decision.refused(Reason.OUT_OF_SCOPE, outside),
            requirement=requirement,
            revision=self.revision,
            fix_urls=self._fix_urls,
            limit=str(value) if outside in LIMIT_TYPES and value is not None else None,
        )

    @property
    def scope_filter(self) -> ScopeFilter:
        """What a query must be restricted to."""
        requirement, grant = self._permission()
        self._judged = True
        return filter_of(grant.scopes(), requirement.scope_types)

    def _permission(self) -> tuple[Requirement, Grant]:
        grant = self._decision.grant
        if self.requirement is None or grant is None:
            raise RuntimeError("the route's guard is no permission, so there is no scope to judge by")
        return self.requirement, grant
