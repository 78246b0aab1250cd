"""The words in which features are defined, once: everything else about a feature follows from these objects.

The names are Feast's (entity, source, view, on-demand view, service) and the formulas are plain Polars.
"""

from lockstep.define.entity import Entity
from lockstep.define.feature import Feature
from lockstep.define.fitted_view import FittedView
from lockstep.define.names import FITTED_AT
from lockstep.define.on_demand_view import OnDemandView
from lockstep.define.question import Question
from lockstep.define.service import Service
from lockstep.define.source import Source, source
from lockstep.define.view import View

__all__ = [
    "FITTED_AT",
    "Entity",
    "Feature",
    "FittedView",
    "OnDemandView",
    "Question",
    "Service",
    "Source",
    "View",
    "source",
]
