import asyncio
from collections.abc import Mapping
from typing import Any, Final

from chassis.jobs import again_and_again
from infra.clock import Clock
from infra.postgres.database import Database
from services.finance.dashboards.operations import fold

#: Every company is looked at; what is not folded meanwhile is a few thousand rows where most is going on.
_FOLDING_INTERVAL_SECONDS: Final = 600.0


async def fold_spent_sums(_components: Mapping[type, Any], database: Database, _clock: Clock) -> None:
    """Without it sums stay right and take ever longer to read."""

    async def pause() -> None:
        await asyncio.sleep(_FOLDING_INTERVAL_SECONDS)

    await again_and_again("fold_spent_sums", lambda: fold(database), pause)
