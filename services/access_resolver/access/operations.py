from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from access.decision import Requirement
from access.path import AccessPath
from access.unknown import StateUnknownError
from contracts.identifiers import CompanyId, UserId
from contracts.permissions import PERMISSIONS, Status
from contracts.problems import Reason


@dataclass(frozen=True)
class ModuleAccess:
    """One module as a person has it: what they may do there, on what, and what stands in the way of the rest."""

    module: str
    allowed: tuple[str, ...]
    refused: Mapping[str, Reason]
    scopes: Mapping[str, Literal["*"] | tuple[str, ...]]


def effective_access(path: AccessPath, company_id: CompanyId, user_id: UserId) -> list[ModuleAccess]:
    """Every active permission of every module, decided as its module would. Raises StateUnknownError."""
    return [_module(path, company_id, user_id, module) for module in PERMISSIONS]


def _module(path: AccessPath, company_id: CompanyId, user_id: UserId, module: str) -> ModuleAccess:
    allowed: list[str] = []
    refused: dict[str, Reason] = {}
    scopes: Mapping[str, Literal["*"] | tuple[str, ...]] = {}
    for row in PERMISSIONS[module].values():
        if row.status is not Status.ACTIVE:
            continue
        decision = path.decide(company_id, user_id, Requirement.of(row.key), reading=True)
        if decision.reason is None:
            allowed.append(row.key)
        elif decision.reason is Reason.STATE_UNKNOWN:
            raise StateUnknownError(decision.detail or "the access state is not known")
        else:
            refused[row.key] = decision.reason
        if decision.grant is not None:
            scopes = decision.grant.scopes()
    return ModuleAccess(module=module, allowed=tuple(allowed), refused=refused, scopes=scopes)
