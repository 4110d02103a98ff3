from chassis.manifest import Manifest

MANIFEST = Manifest(
    key="entitlements",
    kind="system",
    definition="Says what a company is entitled to, derived from its purchases: base, modules and capabilities.",
    owns=("module catalog", "packages", "commercial add-ons", "prices", "company entitlements"),
    reads=("checkout.purchases.v1", "checkout.subscriptions.v1"),
    publishes=("entitlements.catalog.v1", "entitlements.companies.v1", "entitlements.heartbeats.v1"),
    must_nots=(
        "grant anything to a person: that is Auth's",
        "decide a request of a module: the module does, from its own cache",
        "take money or talk to a payment provider: that is Checkout's",
    ),
)
