"""Fill a page's template with data, with all styles and scripts inside the file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.errors import UsageError
from pellucid.files import result_file
from pellucid.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment

ENDINGS = (".html", ".htm")


def check_page(file: str | Path) -> Path:
    """The path of a page, before anything is computed for it.

    Raises:
        UsageError: its ending is not .html.
    """
    file = Path(file)
    if file.suffix.lower() not in ENDINGS:
        raise UsageError(f"{printable(file)}: a page needs the ending .html")
    return file


def write_page(file: str | Path, name: str, /, **values: Any) -> Path:
    """Write the page `name`, whole or not at all.

    Raises:
        UsageError: the file has no ending of a page, or cannot be written.
    """
    file = check_page(file)
    text = page(name, **values)
    with result_file(file) as scratch:
        scratch.write_text(text, encoding="utf-8")
    return file


def page(name: str, /, **values: Any) -> str:
    """The HTML of the page `name`, a folder beside this module.

    Whatever a template prints is text: it is escaped, and its invisible characters are written out. A value it has no
    use for is ignored, one it misses is an error.
    """
    return _environment().get_template(f"{name}/page.html").render(values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("pellucid.web", "")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.globals["inlined"] = lambda file: Markup(loader.get_source(environment, file)[0])  # files of ours
    return environment
