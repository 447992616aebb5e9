"""`tutelage label`: filling the caches of a recipe, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tutelage.labelling.fill import Fill, Workers, fill_caches, require_fillable
from tutelage.labelling.pool import Origin, Pool
from tutelage.labelling.wanted import caches_of
from tutelage.plan import make_plan
from tutelage.recipe_file import load_recipe

__all__ = ["label_recipe"]


def label_recipe(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    workers: int | None = None,
    ray: str | None = None,
    progress: bool = True,
) -> list[Fill]:
    """Has the cached teachers of a recipe answer what a run of it will ask, and trains nothing.

    Called again after a kill, it goes on where it was. However many processes ask, the shards are the same.

    Args:
        path: The recipe's file.
        overrides: Of its fields, as on the command line.
        workers: How many processes ask; None: this one, or on a Ray cluster one for each CPU.
        ray: The address of a Ray cluster, or `local`; None: this machine, without Ray.
        progress: Show a bar.

    Raises:
        UserError: The recipe has no cached teacher, its teacher is trained in the run, or a folder can't be used.
        RunError: A worker died, or the disk is full; what was answered is kept.
    """
    plan = make_plan(load_recipe(path, overrides))
    require_fillable(plan)
    caches = caches_of(plan.recipe)
    asking: Workers | None = None
    origin = Origin.of(path, overrides, caches, workers or 1)
    if ray is not None:
        from tutelage.labelling.ray_cluster import RayCluster

        asking = RayCluster(origin, caches, ray, workers)
    elif workers is not None and workers > 1:
        asking = Pool(origin, caches, workers)
    return fill_caches(plan, asking, progress=progress)
