"""The cache: what a teacher said about rows in views, in Arrow IPC files that are mapped into memory.

A folder holds `manifest.json` (whose answers these are, about which rows, in which form, with which error) and shards,
each with the answers to a run of (row, view) pairs. Files appear whole or not at all, and name what they hold, so that
filling goes on where it stopped and nothing that is damaged or belongs elsewhere is ever read as an answer.
"""

from tutelage.cache.builder import Built, ShardBuilder
from tutelage.cache.contents import BY_CONTENT, Contents, digests_of
from tutelage.cache.form import FeatureForm, Form, OutputForm
from tutelage.cache.jobs import Job, Keys
from tutelage.cache.live import as_stored, moved, stored_bytes
from tutelage.cache.manifest import Identity, Manifest
from tutelage.cache.parts import Part, joined, names_of, parts_of, request_of, signals_of
from tutelage.cache.store import Store

__all__ = [
    "BY_CONTENT",
    "Built",
    "Contents",
    "FeatureForm",
    "Form",
    "Identity",
    "Job",
    "Keys",
    "Manifest",
    "OutputForm",
    "Part",
    "ShardBuilder",
    "Store",
    "as_stored",
    "digests_of",
    "joined",
    "moved",
    "names_of",
    "parts_of",
    "request_of",
    "signals_of",
    "stored_bytes",
]
