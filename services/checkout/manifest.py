from chassis.manifest import Manifest

MANIFEST = Manifest(
    key="checkout",
    kind="system",
    definition="Sells packages and add-ons: trials, purchases, subscriptions, and what the payment provider reports.",
    owns=("checkout sessions", "customers", "subscriptions", "trials", "processed provider events"),
    reads=("entitlements.catalog.v1",),
    publishes=("checkout.purchases.v1", "checkout.subscriptions.v1"),
    must_nots=(
        "say what a company is entitled to: that is Core's",
        "believe a payment that no signed webhook reported",
        "keep card numbers, names or mail addresses",
    ),
    integrations=("payment provider: offline",),
)
