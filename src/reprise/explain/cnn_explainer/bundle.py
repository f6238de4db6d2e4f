"""One classic script from the page's modules: browsers load no modules from file://."""

from __future__ import annotations

import re
from importlib.resources import files

__all__ = ["bundle"]

IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) (\w+))", re.MULTILINE)


def bundle(entry: str = "main") -> str:
    """The script of a module of the page and of all that it imports, each in a scope of its own.

    Only named imports from beside the file and exports of functions, constants and classes are known, which is all
    that the page's modules use; anything else is refused.

    Args:
        entry: name of the module that starts the page.

    Raises:
        ValueError: a module uses an import or export of another form, or modules import each other in a circle.

    Example:
        >>> "const $network = (() => {" in bundle()
        True
    """
    done: dict[str, str] = {}
    _add(entry, done, ())
    return '"use strict";\n(() => {\n' + "\n".join(done.values()) + "})();\n"


def _add(name: str, done: dict[str, str], above: tuple[str, ...]) -> None:
    if name in done:
        return
    if name in above:
        raise ValueError(f"modules of the page import each other in a circle: {' -> '.join([*above, name])}")
    source = files(__package__).joinpath("page", f"{name}.js").read_text(encoding="utf-8")
    for match in IMPORT.finditer(source):
        _add(match[2], done, (*above, name))
    exported = EXPORT.findall(source)
    body = EXPORT.sub("", IMPORT.sub(lambda match: f"const {{{match[1]}}} = ${match[2]};\n", source))
    left = re.search(r"^(import|export)\b.*", body, re.MULTILINE)
    if left:
        raise ValueError(f"{name}.js: the bundle does not know this form: {left[0]}")
    done[name] = f"const ${name} = (() => {{\n{body}\nreturn {{ {', '.join(exported)} }};\n}})();\n"
