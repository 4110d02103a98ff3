"""The API documentation of a service. Its scripts come from a package: it works offline and loads nothing foreign."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import fastapi_offline
from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse, HTMLResponse

from chassis.manifest import Manifest
from chassis.openapi_document import openapi_document
from chassis.routing import router
from middleware.guards import Public, guard

_ASSETS: Final = Path(fastapi_offline.__file__).parent / "static"
_ASSET_NAMES: Final = frozenset({"swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"})


def documentation_router(manifest: Manifest, app: FastAPI, routers: Sequence[APIRouter]) -> APIRouter:
    """`docs` for people, `openapi.json` for tools: of the routes the application is made of."""
    group = manifest.route_group
    documentation = router(prefix=group, tag="documentation")
    readable_by_all = guard(Public("the documentation holds no data"))

    @documentation.get("/openapi.json", include_in_schema=False)
    @readable_by_all
    async def openapi() -> dict[str, Any]:
        return openapi_document(app, routers)

    @documentation.get("/docs", include_in_schema=False)
    @readable_by_all
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=f"{group}/openapi.json",
            title=app.title,
            swagger_js_url=f"{group}/docs/swagger-ui-bundle.js",
            swagger_css_url=f"{group}/docs/swagger-ui.css",
            swagger_favicon_url=f"{group}/docs/favicon.png",
        )

    for name in sorted(_ASSET_NAMES):
        documentation.add_api_route(
            f"/docs/{name}", readable_by_all(_asset(name)), include_in_schema=False, response_class=FileResponse
        )
    return documentation


def _asset(name: str) -> Any:
    async def asset() -> FileResponse:
        return FileResponse(_ASSETS / name, headers={"Cache-Control": "public, max-age=86400"})

    return asset
