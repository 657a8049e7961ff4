"""The model against the machine: files, memory, the prepared file, the disk it is on."""

from pathlib import Path

from hybrid.cache.fingerprint import contents_of
from hybrid.cache.record_file import DEFAULT_NAME, RecordFile, require_match
from hybrid.checkpoint import Checkpoint
from hybrid.config import ModelConfig
from hybrid.doctor.check import Check, bad, gigabytes, good, none
from hybrid.errors import KimiLocalError
from hybrid.hardware import Disk
from hybrid.inventory import take_inventory
from hybrid.placement import Plan

NO_MODEL = "no model was given (--model DIR), or it cannot be read"


class Opened:
    """A model directory that passed: its configuration, and what the rest needs to know."""

    def __init__(self, model_dir: Path) -> None:
        """Read and check every header; raises ConfigError, CheckpointError."""
        self.path = model_dir
        self.config = ModelConfig.from_dir(model_dir)
        with Checkpoint.open(model_dir, self.config) as checkpoint:
            self.inventory = take_inventory(self.config, checkpoint)
            self.files = len(checkpoint.files)
            text = self.config.text
            self.contents = contents_of(model_dir, text, checkpoint) if text.moe_layers else None


def checkpoint(model_dir: Path | None) -> tuple[Check, Opened | None]:
    """Whether the model can be read at all; every header against config.json."""
    if model_dir is None:
        return none("checkpoint", "no model was given (--model DIR)"), None
    try:
        opened = Opened(model_dir)
    except KimiLocalError as error:
        fix = f"kimi-local inspect {model_dir}; download what is missing or damaged again"
        return bad("checkpoint", str(error), fix), None
    size = gigabytes(opened.inventory.bytes)
    return good("checkpoint", f"{opened.files} shards, {size}, every header as expected"), opened


def memory(plan: Plan | None) -> Check:
    """Whether the loader would take it, and how many experts RAM would hold."""
    if plan is None:
        return none("memory", NO_MODEL)
    if not plan.fits:
        fix = "; ".join(plan.advice[:2]) or "kimi-local plan says what would fit"
        return bad("memory", f"the model does not fit: {plan.bottleneck}", fix)
    slots = plan.expert_slots_per_layer
    held = f"{slots['vram'] + slots['ram']} of {sum(slots.values())} experts of a layer in memory"
    return good("memory", f"{gigabytes(in_ram(plan))} of RAM; {held}")


def in_ram(plan: Plan) -> int:
    """Bytes that it takes there."""
    return sum(row.get("ram", 0) for row in plan.bytes.values())


def prepared(opened: Opened | None, from_file: bool, disk: Disk | None) -> Check:
    """Experts that RAM lacks are read fast only from the file that `prepare` writes."""
    name = "prepared file"
    if opened is None or opened.contents is None:
        return none(name, NO_MODEL if opened is None else "this model has no routed experts")
    path = opened.path / DEFAULT_NAME
    fix = f"kimi-local prepare {opened.path}"
    if path.exists():
        try:
            require_match(path, RecordFile.open(path).contents, opened.contents)
        except KimiLocalError as error:
            return bad(name, str(error), f"{fix} --force")
        return good(name, f"{path.name}, {gigabytes(opened.contents.nbytes)}, belongs to the model")
    if not from_file:
        return none(name, "not needed: all experts have a place in memory")
    if disk and disk.free_bytes is not None and disk.free_bytes < opened.contents.nbytes:
        short = gigabytes(opened.contents.nbytes - disk.free_bytes)
        return bad(
            name, f"none, and the disk is {short} short of it", f"free that much, then {fix}"
        )
    return bad(name, "none: experts are read from the shards and repacked on the way", fix)


def direct_reads(disk: Disk | None, from_file: bool) -> Check:
    """Experts in the page cache would push out what is in use."""
    name = "direct reads"
    if disk is None or disk.direct is None:
        return none(name, NO_MODEL if disk is None else "no file to try it on")
    if disk.direct:
        return good(name, "files are read past the page cache")
    if not from_file:
        return none(name, "not possible here, nor needed: all experts have a place in memory")
    return bad(
        name,
        "this file system reads through the page cache only (no O_DIRECT)",
        "keep the model on a local ext4 or xfs; in a container, mount it as a volume",
    )
