"""Start a program as the interpreter would, then serve what it exported. Kept light: every start pays for it."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


def run_program(path: str, arguments: list[str]) -> None:
    """Run the program at ``path`` as ``__main__``, then serve its exported functions until the channel closes."""
    sys.argv = [path, *arguments]
    sys.path[0] = os.path.dirname(path)
    sys.excepthook = _print_program_error
    with open(path, "rb") as file:
        source = file.read()
    main = type(sys)("__main__")
    main.__file__ = path
    sys.modules["__main__"] = main
    try:
        exec(compile(source, path, "exec"), main.__dict__)
        sys.stdout.flush()
        calls = sys.modules.get("strongroom.inside.calls")  # not there: nothing was exported
        if calls is not None and calls.has_exports():
            calls.serve()
    except KeyboardInterrupt:
        # What the hook below needs. Imported only there, its own evaluations make CPython 3.11 forget that a
        # KeyboardInterrupt is what ends it, and with it the status 130.
        import traceback  # noqa: F401

        raise


def _print_program_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A traceback that begins with the program's own lines, as if the interpreter had started it."""
    import traceback

    ours = (os.path.dirname(__file__) + os.sep, "<frozen runpy>")
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(ours):
        trace = trace.tb_next
    traceback.print_exception(kind, error, trace)
