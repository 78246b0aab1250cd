"""The import closure of a module: the files whose change may change what it computes.

It is read from the source text, not from what happens to be loaded: imports at any depth of a function count, imports
for type checkers do not. A call such as ``project.objects("views", View)`` adds the modules that the project names so.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from lockstep.errors import DefinitionError
from lockstep.files import file_hash
from lockstep.project import Project

__all__ = ["closure", "closure_hash"]


def closure(project: Project, module: str, *, roles: bool = True) -> list[str]:
    """Return the project's own files that `module` may import, relative to the root, sorted.

    The files of packages on the way (``__init__.py``) count where they are not empty, and so does data beside a module
    that begins with its name, such as ``contract.schema.json``. Without `roles`, the modules that the project names for
    a role do not: what is left is the library's own code.
    """
    seen: dict[str, Path] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        path = _file(project.root, name)
        if name in seen or path is None:
            continue
        seen[name] = path
        imports, named = _read(path.read_text(encoding="utf-8"), name, path.name == "__init__.py")
        todo += imports
        todo += [m for role in named if roles and role in project.names for m in project.modules(role)]
        todo += [name.rsplit(".", 1)[0]] if "." in name else []
    files = {f for p in seen.values() if p.stat().st_size for f in (p, *p.parent.glob(f"{p.stem}.*.json"))}
    return sorted(f.relative_to(project.root).as_posix() for f in files)


def closure_hash(project: Project, module: str, *, roles: bool = True) -> str:
    """Return one sha256 over the paths and contents of the closure of `module`."""
    lines = [f"{file_hash(project.root / name)}  {name}\n" for name in closure(project, module, roles=roles)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@lru_cache(None)
def _read(text: str, module: str, is_package: bool) -> tuple[list[str], list[str]]:
    """Return the modules that a module's text imports, and the roles it asks for."""
    try:
        tree = ast.parse(text)
    except SyntaxError as e:
        where = f"{module.replace('.', '/')}.py line {e.lineno}"
        raise DefinitionError("not Python", where=where, found=e.msg, do="Mend the file.") from None
    return list(_imports(tree, module, is_package=is_package)), list(_roles(tree))


def _file(root: Path, module: str) -> Path | None:
    """Return the file of a module that lives in the project, None for anybody else's."""
    base = root.joinpath(*module.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def _imports(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[str]:
    """Yield the names of modules that `tree` imports, skipping what only type checkers read."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in _walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*start, *([node.module] if node.module else [])])
            yield name
            yield from (f"{name}.{a.name}" for a in node.names)


def _walk(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING":
            for branch in node.orelse:
                yield branch
                yield from _walk(branch)
            continue
        yield node
        yield from _walk(node)


def _roles(tree: ast.AST) -> Iterator[str]:
    """Yield the roles in calls like ``project.objects("views", ...)``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            first = node.args[0]
            if node.func.attr in ("objects", "load") and isinstance(first, ast.Constant):
                yield str(first.value)
