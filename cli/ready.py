"""Whether the service of this container is ready, told by the exit status. Docker asks often: nothing is imported."""

import os
import sys
import urllib.request

_TIMEOUT_SECONDS = 4.0


def main() -> None:
    address = f"http://127.0.0.1:8000{os.environ['KISUM_ROUTE_GROUP']}/readyz"
    # A proxy in the environment is for other hosts.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        direct.open(address, timeout=_TIMEOUT_SECONDS).close()
    except OSError as error:
        sys.exit(f"{address}: {error}")


if __name__ == "__main__":
    main()
