from chassis.request import Work
from chassis.routing import ResponseModel, router
from contracts.payload import Slug
from middleware.guards import ActiveMember, guard
from services.auth.manifest import MANIFEST
from services.auth.permissions import operations

permissions = router(prefix=MANIFEST.route_group, tag="permissions")


class PermissionBody(ResponseModel):
    module: str
    key: str
    label: str
    scope_types: list[str]
    capability: str | None
    alias_of: str | None
    status: str
    administration: bool


@permissions.get("/permissions")
@guard(ActiveMember())
async def list_permissions(work: Work, module: Slug | None = None) -> list[PermissionBody]:
    """The permission catalog, or the part of one module."""
    return [PermissionBody.model_validate(row) for row in await operations.permissions_of(work, module)]
