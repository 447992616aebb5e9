"""What makes two questions the same one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Question", "question"]


@dataclass(frozen=True)
class Question:
    """One question to one endpoint.

    Attributes:
        key: SHA-256 of the canonical request and the number of the sample: the same key is the same question.
        topic: SHA-256 of the canonical request alone: further samples of it have the same.
        sample: The number of the sample, from 0.
    """

    key: str
    topic: str
    sample: int = 0


def question(request: Mapping[str, Any], *, sample: int = 0) -> Question:
    """The question that a request is.

    Args:
        request: Everything that decides the answer, as plain data: endpoint, model, prompt, settings. What must not
            be stored (a key, a header) is no part of it; the ledger keeps the hash and not the request.
        sample: Asked again with another number, the same request is another question.
    """
    canonical = json.dumps(request, sort_keys=True, separators=(",", ":"), allow_nan=False)
    topic = hashlib.sha256(canonical.encode()).hexdigest()
    return Question(hashlib.sha256(f"{topic} {sample}".encode()).hexdigest(), topic, sample)
