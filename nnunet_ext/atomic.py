"""Write a file under a temporary name and rename it, so that a killed run leaves no half file."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` if the block succeeds.

    Args:
        path: The file to write; its folder is made when missing.

    Yields:
        A path in the same folder that ends like `path`, so that writers which look at the ending work.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}.tmp.{target.name}")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write `content` as indented JSON, atomically.

    Args:
        path: The file to write.
        content: What `json.dumps` accepts.
    """
    text = json.dumps(content, indent=4)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
