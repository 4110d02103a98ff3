from chassis.manifest import Manifest

MANIFEST = Manifest(
    key="access_resolver",
    kind="system",
    route_name="access",
    definition="Says who may do what and why, with the decision the modules use, from a copy of all modules' grants.",
    owns=("its own full copy of the access state", "what each instance acknowledges"),
    reads=("entitlements", "memberships", "permissions", "acknowledgements"),
    publishes=(),
    must_nots=(
        "be asked by a module: each decides from its own cache",
        "decide anything: it tells what a module would decide",
    ),
)
