"""Says what the library lacks of a class that configs can name; run in the root of the repository or a copy."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from pathlib import Path
from typing import Any

# The packages whose classes configs name, their registries, and their classes that are no entries of these.
REGISTRIES: dict[str, tuple[str, set[str]]] = {
    "embeddings": ("EMBEDDINGS", {"Embedding", "TrainableEmbedding", "FixedEmbedding"}),
    "samples": ("SAMPLES", {"SampleGenerator"}),
    "criteria": ("CRITERIA", {"Criterion", "Registered"}),
    "networks": ("NETWORKS", set()),
    "methods": (
        "METHODS",
        {"Method", "EmbeddingMethod", "ImageMethod", "PositionMethod", "DegradationMethod"},
    ),
}
# A registry that takes any module: of which class those are that must be in it.
BASES = {"criteria": "Criterion", "networks": None}


def gaps(root: Path) -> list[str]:
    """One sentence for each class that is not registered, not exported or without a test."""
    missing = []
    for package, (name, others) in REGISTRIES.items():
        module = importlib.import_module(f"contrastive_sr.{package}")
        registry: Any = getattr(module, name)
        known = _ours(registry)  # other tests of the process may have registered theirs
        kind = BASES.get(package, registry.base.__name__)
        base = getattr(module, kind) if kind else None
        for info in pkgutil.iter_modules(module.__path__, f"{module.__name__}."):
            for cls in vars(importlib.import_module(info.name)).values():
                if not inspect.isclass(cls) or cls.__module__ != info.name or cls.__name__ in others:
                    continue
                if base is not None and issubclass(cls, base) and cls.__name__ not in registry:
                    missing.append(f"{cls.__name__} of {info.name} is in no registry.")
        missing += [f"{cls} is in a file that {module.__name__} does not import." for cls in _ours(registry) - known]
        tests = "\n".join(path.read_text() for path in (root / "tests" / package).glob("test_*.py"))
        for cls in known:
            if getattr(module, cls, None) is not registry[cls]:
                missing.append(f"{cls} is not exported by {module.__name__}.")
            if not re.search(rf"\b{cls}\b", tests):
                missing.append(f"{cls} has no test in tests/{package}.")
    return missing


def _ours(registry: Any) -> set[str]:
    return {name for name, cls in registry.items() if cls.__module__.startswith("contrastive_sr.")}


if __name__ == "__main__":
    print(json.dumps(gaps(Path.cwd())))
