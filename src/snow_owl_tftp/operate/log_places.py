"""A log below the root could be fetched by whoever can send a datagram; an earlier chart put one there. So could an
inventory of machines.

May know: where settings say that files are. Must not open or create one.
"""

import os
from pathlib import Path

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError

__all__ = ["refuse_inventory_below_root", "refuse_logs_below_root"]


def refuse_logs_below_root(settings: Settings) -> None:
    """Look where the log and the audit log would be.

    Raises:
        ConfigError: One lies below the root, by whatever path; the text names the key and the remedy.
    """
    logging = settings.logging
    served = [settings.root_dir, *_roots_of_rules(settings)]
    files = {"logging.file": logging.file, "logging.audit_file": logging.audit_file if logging.audit_enabled else ""}
    problems = [
        f"{key}: {file}: lies below root_dir, or a root of a rule, where clients can read it; "
        "name a file outside, such as one in /var/log, or serve a directory beside it"
        for key, file in files.items()
        if file and any(_lies_below(file, directory) for directory in served)
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _roots_of_rules(settings: Settings) -> set[str]:
    """Absolute ones, up to the first part that a variable chooses; the others lie below root_dir."""
    roots = {root for rule in settings.rules for root in rule.roots if root.startswith("/")}
    return {root.partition("{")[0].rpartition("/")[0] if "{" in root else root for root in roots}


def refuse_inventory_below_root(settings: Settings) -> None:
    """Look where the inventory is, which may hold what is meant for one machine only.

    Raises:
        ConfigError: It lies below the root, or one of a rule, by whatever path.
    """
    file = settings.machines.inventory
    if file and any(_lies_below(file, directory) for directory in (settings.root_dir, *_roots_of_rules(settings))):
        raise ConfigError(
            f"machines.inventory: {file}: lies below root_dir, or a root of a rule, where clients can read it; "
            "name a file outside"
        )


def _lies_below(file: str, root: str) -> bool:
    """By device and inode of every directory above it: a root has several paths where links or bind mounts are."""
    try:
        root_status = Path(root).stat()
    except OSError:
        return False  # whoever opens the root says what is wrong with it
    for directory in Path(os.path.realpath(file)).parents:
        try:
            if os.path.samestat(directory.stat(), root_status):
                return True
        except OSError:
            continue  # it is to be made, or may not be entered; what is above it may still be seen
    return False
