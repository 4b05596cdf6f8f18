"""Pictures of tapes: reading, layout, and the formats they are written in."""

from .graph import Graph, graph
from .model import Cluster, Edge, Node, Parameter, Port, Rail

__all__ = ["Cluster", "Edge", "Graph", "Node", "Parameter", "Port", "Rail", "graph"]
