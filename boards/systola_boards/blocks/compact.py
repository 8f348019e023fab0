"""The blocks of the compact engine."""

from systola_boards.blocks.factory import Factory
from systola_hdl.compact.control.plane import ControlPlane
from systola_hdl.compact.engine import Engine
from systola_hdl.compact.matmul.accumulators import Accumulators
from systola_hdl.compact.matmul.dot_array import DotArray
from systola_hdl.compact.matmul.streamer import Streamer
from systola_hdl.compact.matmul.unit import MatmulUnit
from systola_hdl.compact.matmul.weight_loader import WeightLoader
from systola_hdl.compact.memory.activation_memory import ActivationMemory
from systola_hdl.compact.memory.weight_memory import WeightMemory
from systola_hdl.compact.post.requantizer import Requantizer
from systola_hdl.compact.post.unit import PostUnit

__all__ = ["COMPACT"]

COMPACT: dict[str, Factory] = {
    "engine": Engine,
    "control_plane": ControlPlane,
    "activation_memory": ActivationMemory,
    "weight_memory": WeightMemory,
    "matmul_unit": MatmulUnit,
    "streamer": Streamer,
    "weight_loader": WeightLoader,
    "dot_array": DotArray,
    "accumulators": Accumulators,
    "post_unit": PostUnit,
    "requantizer": lambda _config: Requantizer(),
}
