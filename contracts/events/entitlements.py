"""What Core publishes: entitlements of companies, the catalog, its heartbeat."""

from typing import ClassVar, Literal

from contracts.events.heartbeat import Heartbeat
from contracts.identifiers import CompanyId
from contracts.payload import AmountMinor, Count, Currency, Instant, OpenStatus, Part, Payload, Slug


class EntitlementStatus(OpenStatus):
    """Where a company or its base stands. Entitled: trialing, active, and past_due until `valid_until`."""

    NONE = "none"
    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    SUSPENDED = "suspended"
    ENDED = "ended"
    #: Published in place of a state that could not be: readers answer 503 for the company.
    UNKNOWN = "unknown"


class CatalogStatus(OpenStatus):
    """Retired rows are sold no more; who bought them keeps them."""

    ACTIVE = "active"
    RETIRED = "retired"
    UNKNOWN = "unknown"


class BaseEntitlement(Part):
    """The one base module of a company."""

    module: Slug
    status: EntitlementStatus
    #: Exclusive; none is without end.
    valid_until: Instant | None


class ModuleEntitlement(Part):
    """A module the company may use while its base is live."""

    key: Slug
    valid_until: Instant | None


class EntitlementChanged(Payload):
    """All a company is entitled to now. Replaces what was known of it."""

    event_type: ClassVar[str] = "entitlements.entitlement-changed.v1"

    status: EntitlementStatus
    base: BaseEntitlement | None
    modules: tuple[ModuleEntitlement, ...]
    capabilities: tuple[Slug, ...]

    def aggregate_id(self, company_id: CompanyId) -> str:
        """The company."""
        return str(company_id)


class ModuleChanged(Payload):
    """A row of the module catalog."""

    event_type: ClassVar[str] = "entitlements.module-changed.v1"

    key: Slug
    type: Literal["base", "addon"]
    label: str
    #: The bases an add-on module may be layered on; empty for a base.
    compatible_bases: tuple[Slug, ...]
    status: CatalogStatus

    def aggregate_id(self, company_id: CompanyId) -> str:  # noqa: ARG002 - belongs to no company
        """`module/` and its key."""
        return f"module/{self.key}"


class PackageChanged(Payload):
    """A package: what is bought, and the modules it turns on."""

    event_type: ClassVar[str] = "entitlements.package-changed.v1"

    key: Slug
    label: str
    #: Exactly one for a `basic_*` package, none for a package of add-ons.
    base_module: Slug | None
    addon_modules: tuple[Slug, ...]
    #: 0 is no trial.
    trial_days: Count
    status: CatalogStatus

    def aggregate_id(self, company_id: CompanyId) -> str:  # noqa: ARG002 - belongs to no company
        """`package/` and its key."""
        return f"package/{self.key}"


class AddonChanged(Payload):
    """A commercial add-on: a capability sold on top of modules."""

    event_type: ClassVar[str] = "entitlements.addon-changed.v1"

    key: Slug
    label: str
    capability: Slug
    #: The modules it attaches to; one of them must be entitled.
    modules: tuple[Slug, ...]
    status: CatalogStatus

    def aggregate_id(self, company_id: CompanyId) -> str:  # noqa: ARG002 - belongs to no company
        """`addon/` and its key."""
        return f"addon/{self.key}"


class PriceChanged(Payload):
    """What a package or an add-on costs per interval, in one currency."""

    event_type: ClassVar[str] = "entitlements.price-changed.v1"

    key: Slug
    item_kind: Literal["package", "addon"]
    item_key: Slug
    amount_minor: AmountMinor
    currency: Currency
    interval: Literal["month", "year"]
    #: True until a platform admin has set a real price.
    placeholder: bool
    status: CatalogStatus

    def aggregate_id(self, company_id: CompanyId) -> str:  # noqa: ARG002 - belongs to no company
        """`price/` and its key."""
        return f"price/{self.key}"


class EntitlementsHeartbeatSent(Heartbeat):
    """Core's heartbeat."""

    event_type: ClassVar[str] = "entitlements.heartbeat-sent.v1"
