"""The services there are: the folders of `services/`."""

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

import services
from chassis.service import Service


def service_names() -> list[str]:
    """Every service's name, in order, without importing one."""
    return sorted(module.name for module in pkgutil.iter_modules(services.__path__) if module.ispkg)


def load(names: Iterable[str]) -> dict[str, Service[Any]]:
    """The declarations of these services."""
    return {name: importlib.import_module(f"services.{name}.app").service for name in names}
