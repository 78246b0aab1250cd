"""The questions that ``params.yaml`` asks, and whether their services can answer them."""

from __future__ import annotations

from lockstep.catalogue import Catalogue
from lockstep.clock import INSTANT
from lockstep.define import Question
from lockstep.errors import DefinitionError, SettingsError, did_you_mean
from lockstep.project import Project

__all__ = ["questions", "require_questions", "require_services"]


def questions(p: Project) -> dict[str, Question]:
    """Return the questions of ``params.yaml`` by name, in its order.

    Raises
    ------
    SettingsError
        Nobody defined one of them.
    """
    defined = {q.name: q for q in p.objects("labels", Question)}
    for name in p.settings.questions:
        if name not in defined:
            raise SettingsError(
                f"no question {name!r}", where="questions of params.yaml", do=did_you_mean(name, defined)
            )
    return {name: defined[name] for name in p.settings.questions}


def require_questions(catalogue: Catalogue) -> None:
    """Refuse what training would find out late: questions as `questions` and `require_services` refuse them."""
    for question in questions(catalogue.project).values():
        require_services(catalogue, question)


def require_services(catalogue: Catalogue, question: Question) -> None:
    """Refuse a question whose services read what nobody asked about can have.

    Raises
    ------
    SettingsError
        Nobody defined one of the services.
    DefinitionError
        A service reads a view with a key, or a request with a column, that the question's population does not have.
    """
    for service in catalogue.project.settings.questions[question.name].dataset.services:
        _require(catalogue, question, service)


def _require(catalogue: Catalogue, question: Question, service: str) -> None:
    features, where = catalogue.read_by([service]), f"service {service}, which question {question.name} reads"
    for view in catalogue.views_behind(features):
        if lacking := {*view.keys} - {*question.row}:
            reading = [f for f in features if view in catalogue.views_behind([f])]
            raise DefinitionError(
                f"features of view {view.name} without its key", where=where,
                expected=f"entities of the question with {', '.join(sorted(lacking))}",
                found=f"{', '.join(question.row)} for {', '.join(reading)}",
                do="Add the entity to the question, or take these features out of the service.",
            )  # fmt: skip
    for now in catalogue.demands(features):
        carried = [column for column, kind in now.request.items() if kind != INSTANT]
        if question.moment == "day" and carried:
            raise DefinitionError(
                "features of what a request carries", where=where, expected='a question with moment="event"',
                found=f"{', '.join(carried)} of on-demand view {now.name}",
                do="A question that is asked on days carries its instant alone: take them out of the service.",
            )  # fmt: skip
