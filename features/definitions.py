"""What Feast loads: every object that follows from the definitions (`feast -c features apply`)."""

from lockstep.feast_objects import feast_objects
from lockstep.project import project

globals().update(feast_objects(project()))
