from chassis.manifest import Manifest

MANIFEST = Manifest(
    key="finance",
    kind="addon",
    definition="Expenses, income, bills and their approval, per event and business unit.",
    owns=("expenses", "bills", "income", "categories", "periods", "rates"),
    reads=("promoter.events.v1", "promoter.artists.v1"),
    publishes=(),
    standalone=False,
    packages=("finance",),
    addons_accepted=(),
    namespace="finance",
    scope_types=("business_unit", "event", "approval_limit"),
    navigation="Finance",
    must_nots=(
        "keep a table about persons that decides anything (002 §13)",
        "say what a company is entitled to, or who a person is",
        "own an event or an artist: it reads projections of them",
    ),
)
