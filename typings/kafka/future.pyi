from collections.abc import Callable
from typing import Any

class Future:
    is_done: bool
    def add_callback(self, f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...
    def add_errback(self, f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...
