"""Pages for a browser: one file each, that opens offline and asks no host for anything.

jinja2 sets them and plotly.js draws in them (extra `report`). Everything from outside passes jinja2's escaping or
`as_json`; a content security policy in the page forbids requests, whatever a record says.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from edgecap.errors import UsageError

_FOLDER = "templates"


def page(template: str, **values: Any) -> str:
    """The page that `pages/<template>` makes of the values. Raises UsageError without the extra `report`.

    A template extends `base.html`; it has `asset("name")`, a file of pages/ as it is, `plotly()`, the library, and
    the filter `as_json`.
    """
    try:
        import jinja2
        import plotly.offline
        from markupsafe import Markup
    except ImportError as error:
        raise UsageError(
            f"pages need the extra 'report': pip install 'edgecap[report]' ({error})"
        ) from error
    world = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    world.filters["as_json"] = lambda value: Markup(as_json(value))
    world.globals["asset"] = lambda name: Markup(_text(name))
    world.globals["plotly"] = lambda: Markup(plotly.offline.get_plotlyjs())
    return world.get_template(template).render(**values)


def as_json(value: Any) -> str:
    """JSON that can stand inside a <script> element, whatever strings it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, code in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
    ):
        text = text.replace(character, code)
    return text.replace("\u2029", "\\u2029")


def _text(name: str) -> str:
    return resources.files("edgecap.report.page").joinpath(_FOLDER, name).read_text("utf-8")
