"""What a backbone is to another process: the folded network, and the one that OpenVINO runs."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING

from simsearch.backbones.runtime import INT8, OpenVinoNetwork, StoredNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from simsearch.backbones.backbone import Backbone

logger = logging.getLogger("simsearch")
LOCAL = {"_device_lock", "hook_lock", "map_hook", "own_spec", "module", "device", "_network"}
"""Attributes of a backbone that stay in their process."""


def state_to_send(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what another process needs to embed as this one does, from the processor."""
    state = {name: value for name, value in attributes.items() if name not in LOCAL}
    network: OpenVinoNetwork | None = attributes["_network"]
    module = attributes["module"]
    on_cpu = attributes["device"].type == "cpu"
    return state | {
        "module": module if on_cpu else copy.deepcopy(module).cpu(),
        "stored": network and network.stored,
    }


def restore(backbone: Backbone, state: dict[str, Any]) -> None:
    """Make a backbone of what was sent, on the processor."""
    stored = state.pop("stored")
    backbone.__dict__.update(state)
    backbone.set_local_state(None)
    backbone.move("cpu")
    backbone.__dict__["_network"] = stored and _compiled(stored, backbone.name)


def _compiled(stored: StoredNetwork, name: str) -> OpenVinoNetwork | None:
    try:
        return OpenVinoNetwork(stored)
    except Exception as error:  # OpenVINO is not installed here, or is another one
        if stored.precision == INT8:
            raise
        logger.warning("OpenVINO cannot run %s here, PyTorch does: %s", name, error)
        return None
