from chassis.manifest import Manifest

MANIFEST = Manifest(
    key="promoter",
    kind="base",
    definition="Events and artists: the shared entities, planned, confirmed and announced by their promoter.",
    owns=("events", "artists"),
    reads=(),
    publishes=("promoter.events.v1", "promoter.artists.v1"),
    standalone=True,
    packages=("basic_promoter",),
    addons_accepted=("finance", "touring", "ai", "venue_marketplace"),
    namespace="promoter",
    scope_types=("business_unit", "event"),
    navigation="Events",
    must_nots=(
        "let anybody else write an event or an artist: others keep projections of them",
        "keep what was spent or earned: that is Finance's",
        "say what a company is entitled to, or who a person is",
    ),
)
