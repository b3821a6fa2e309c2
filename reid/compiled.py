"""Loops that arrays cannot express, compiled at their first call.

The only file that imports numba.
"""

import inspect
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` as machine code, made when it is first called and kept beside its file.

    It releases the GIL. Arguments are numpy arrays and numbers in the order of the signature; a
    function meant for this calls no other of its kind. Processes that never call it do not pay for
    numba's import.
    """

    @cache
    def machine_code() -> Any:
        import numba

        # The plain function: tests wrap it in checks of shapes that numba cannot read.
        return numba.njit(cache=True, nogil=True, error_model="numpy")(inspect.unwrap(function))

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        result: T = machine_code()(*args, **kwargs)
        return result

    return call
