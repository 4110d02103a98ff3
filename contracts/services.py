"""The names of the services (design §2). A name is one: folder, topic owner, database, role, Kafka principal."""

from typing import Final

BASE_MODULES: Final = ("promoter", "venue", "artist", "vendor")
ADDON_MODULES: Final = ("finance", "touring", "ai", "venue_marketplace")
#: What a company can buy. The module key is the service's name and the first part of its permission keys.
MODULES: Final = (*BASE_MODULES, *ADDON_MODULES)
#: Services that no company buys; ticketing is a bridge to another platform and not a module (domain §1.13).
SYSTEM_SERVICES: Final = ("entitlements", "auth", "checkout", "access_resolver", "ticketing")
SERVICES: Final = (*SYSTEM_SERVICES, *MODULES)
