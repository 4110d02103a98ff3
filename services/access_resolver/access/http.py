from typing import Literal

from chassis.request import Caller, Company, OwnAccessPath
from chassis.routing import ResponseModel, router
from contracts.problems import Reason
from middleware.guards import ActiveMember, guard
from services.access_resolver.access import operations
from services.access_resolver.manifest import MANIFEST

access = router(prefix=MANIFEST.route_group, tag="access")


class ModuleAccessBody(ResponseModel):
    """`allowed` are permission keys; `refused` says for each other key which layer stands in the way."""

    module: str
    allowed: list[str]
    refused: dict[str, Reason]
    scopes: dict[str, Literal["*"] | list[str]]


@access.get("/me")
@guard(ActiveMember())
async def my_access(caller: Caller, company: Company, path: OwnAccessPath) -> list[ModuleAccessBody]:
    """What the caller may do in the company, module by module, and what stands in the way of the rest."""
    found = operations.effective_access(path, company, caller.user_id)
    return [
        ModuleAccessBody(
            module=each.module,
            allowed=list(each.allowed),
            refused=dict(each.refused),
            scopes={name: scope if scope == "*" else list(scope) for name, scope in each.scopes.items()},
        )
        for each in found
    ]
