"""Sandboxes that are gVisor containers."""

from torpor_worker.gvisor.host import GVisorHost
from torpor_worker.gvisor.sandbox import GVisorSandbox

__all__ = ["GVisorHost", "GVisorSandbox"]
