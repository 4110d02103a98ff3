from chassis.manifest import Manifest

MANIFEST = Manifest(
    key="auth",
    kind="system",
    definition="Says who a person is, which companies they belong to and what was granted to them.",
    owns=("users", "companies", "memberships", "grants", "permission catalog", "sessions", "signing keys"),
    reads=("entitlements.companies.v1",),
    publishes=(
        "auth.memberships.v1",
        "auth.permissions.v1",
        "auth.signing-keys.v1",
        "auth.sessions.v1",
        "auth.heartbeats.v1",
    ),
    must_nots=(
        "put a name or a mail address into an event or a log line",
        "say what a company is entitled to: that is Core's",
        "decide a request of a module: the module does, from its own cache",
    ),
)
