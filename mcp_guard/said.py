"""The header fields that layers say for the response of one exchange."""

from dataclasses import dataclass, field

from mcp_guard.asgi import RawHeaders
from mcp_guard.layer import Admission


@dataclass(eq=False, slots=True)
class SaidFields:
    """What the admissions so far say: `fixed` in place of the app's own, `defaults` where the app has none."""

    fixed: RawHeaders = field(default_factory=list)
    fixed_names: set[bytes] = field(default_factory=set)
    defaults: RawHeaders = field(default_factory=list)

    def take(self, admission: Admission) -> None:
        """Take note of an admission: of fixed fields the outermost layer's count, of defaults the innermost's."""
        names = [name for name, _ in admission.response_headers]
        if self.fixed_names.isdisjoint(names):
            self.fixed += admission.response_headers
        else:
            self.fixed += [pair for pair in admission.response_headers if pair[0] not in self.fixed_names]
        self.fixed_names.update(names)
        if admission.default_headers:
            named = {name for name, _ in admission.default_headers}
            outer = [pair for pair in self.defaults if pair[0] not in named]
            self.defaults = [*outer, *admission.default_headers]

    def on(self, headers: RawHeaders) -> RawHeaders:
        """The app's fields with those that were said."""
        present = {name.lower() for name, _ in headers}
        if not present.isdisjoint(self.fixed_names):
            headers = [pair for pair in headers if pair[0].lower() not in self.fixed_names]
        present |= self.fixed_names
        missing = [pair for pair in self.defaults if pair[0] not in present]
        return [*headers, *missing, *self.fixed]
