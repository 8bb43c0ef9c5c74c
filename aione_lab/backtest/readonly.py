"""`ReadOnly`: a dictionary that cannot be changed."""

from __future__ import annotations

from typing import Any, NoReturn


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise TypeError("these values cannot be changed; dict(...) gives a copy that can")


class ReadOnly(dict[str, Any]):
    """A ``dict`` that stays as it was made.

    A real one, because pandas and json read a ``MappingProxyType`` wrongly or not at all.
    """

    __setitem__: Any = _refuse
    __delitem__: Any = _refuse
    __ior__: Any = _refuse
    clear: Any = _refuse
    pop: Any = _refuse
    popitem: Any = _refuse
    setdefault: Any = _refuse
    update: Any = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)
