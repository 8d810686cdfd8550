"""What became of a step that was cut off, told from what the database says of it afterwards."""

from __future__ import annotations

from reconciler.model import Direction, Observation, RowStatus, Step


def what_became(step: Step, observation: Observation | None) -> str:
    """What became of `step`, in words.

    Args:
        step: one that was running when its pass was cancelled.
        observation: a reading made after that; None when the database could not be read.
    """
    if observation is None:
        return "not known: the database did not answer; it is read again before anything else runs"
    row = next((row for row in observation.rows if row.version == step.version), None)
    settled = row is None or row.status is RowStatus.SUCCESS
    if settled and (row is not None) is (step.direction is Direction.UP):
        return "finished"
    if step.transactional or row is None:
        return "rolled back: nothing of it is in force"
    if row.status is RowStatus.SUCCESS:
        return "nothing of it was done"
    stopped = f"stopped after {row.statements_done} of {row.statements_total} statements"
    if row.status is RowStatus.RUNNING:
        return f"{stopped}, and whether the next one took effect is found out before anything else runs"
    return stopped
