"""HTML pages of one file each, which open offline and make no request.

jinja2 renders them and plotly.js draws in them (extra `report`). Text from outside passes jinja2's
escaping or `as_json`; a content security policy in the page forbids requests.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from edgecap.errors import UsageError

_FOLDER = "templates"


def page(template: str, **values: Any) -> str:
    """Render `templates/<template>` with the values. Raise UsageError without the extra `report`.

    A template extends `base.html`. It has `asset("name")`, the content of a file in templates/,
    `plotly()`, the library, and the filter `as_json`.
    """
    try:
        import jinja2
        import plotly.offline
        from markupsafe import Markup
    except ImportError as error:
        raise UsageError(
            f"pages need the extra 'report': pip install 'edgecap[report]' ({error})"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["as_json"] = lambda value: Markup(as_json(value))
    environment.globals["asset"] = lambda name: Markup(_text(name))
    environment.globals["plotly"] = lambda: Markup(plotly.offline.get_plotlyjs())
    return environment.get_template(template).render(**values)


def as_json(value: Any) -> str:
    """Return JSON that can stand inside a <script> element, whatever strings it holds."""
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
