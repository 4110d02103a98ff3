"""What Checkout reacts to: the catalog it sells from."""

from typing import Final

from contracts.topics import TOPICS
from infra.kafka.work import WorkConsumer
from services.checkout.projections import operations

CONSUMERS: Final = tuple(
    WorkConsumer(name="catalog", topic=topic, handle=operations.apply_catalog_row)
    for topic in TOPICS
    if topic.name == "entitlements.catalog.v1"
)
