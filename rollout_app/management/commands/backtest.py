"""`manage.py backtest`: a policy over recorded tasks, before any traffic.

    manage.py backtest policy.yaml --tasks tasks.csv
    manage.py backtest support/12 support/13 --tasks tasks.parquet --mapping columns.yaml
    manage.py backtest policy.yaml --tasks gsm8k --sweep escalate:0.4:0.9:26 --bar 0.8 --picture curve.svg
    manage.py backtest policy.yaml --tasks spend.jsonl --log litellm
    manage.py backtest support/12 support/13 --tasks tasks.jsonl --log pointsman

POLICY is a file, or WORKLOAD/NUMBER of a version on this instance. TASKS is a file (CSV, JSON lines, Parquet) with
every model's outcome in each row, or one of the included `gsm8k`, `mmlu`, `routerarena`; with --log it is a gateway's
log. With `--log pointsman` it is a router's task log: a policy's success and cost are estimated, with intervals, from
the tasks whose arm was drawn during a rollout.
"""

import json
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from pointsman.errors import PolicyInvalid
from pointsman.policy import load
from pointsman.visible import visible
from policies_app.catalogue.usage import dollars_per_million
from policies_app.models import PolicyVersion
from rollout_app.backtest import picture, report, single_log
from rollout_app.backtest.readers.mapping import Prices
from rollout_app.backtest.run import backtest
from rollout_app.backtest.sources import add_arguments, open_tasks, source_of
from rollout_app.backtest.tasks import Task
from rollout_app.backtest.threshold import policies_of
from rollout_app.rehearsal.scenario import RECORDED


class Command(BaseCommand):
    help = "Compute what a policy would have answered correctly and cost over recorded tasks."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("policies", nargs="+", metavar="POLICY", help="a file, or WORKLOAD/NUMBER")
        parser.add_argument("--tasks", required=True, help="a file, or gsm8k, mmlu, routerarena")
        add_arguments(parser)
        parser.add_argument(
            "--sweep", default="", help="PLACE:LOW:HIGH:STEPS: one threshold, tried over a range"
        )
        parser.add_argument(
            "--score",
            default="",
            help="the predictor to assess: an input or MODEL:confidence that estimates whether the weak model is right",
        )
        parser.add_argument(
            "--bar", type=float, help="the quality bar, 0 … 1: names the cheapest policy that meets it"
        )
        parser.add_argument("--picture", default="", help="the cost-quality curve, .svg or .png")
        parser.add_argument("--json", action="store_true", help="answer as JSON")

    def handle(self, **options: Any) -> None:
        try:
            self._run(options)
        except PolicyInvalid as error:
            raise CommandError(visible(error)) from None
        except OSError as error:
            raise CommandError(f"{error.filename or 'a temporary file'}: {error.strerror}") from None
        except ValueError as error:
            raise CommandError(visible(error)) from None

    def _run(self, options: Mapping[str, Any]) -> None:
        _refuse_unused(options)
        documents = {name: _document(name) for name in options["policies"]}
        if options["log"]:
            self._against_log(documents, options)
            return
        result = backtest(
            policies_of(documents, options["sweep"]), self._tasks(options), score=options["score"] or None
        )
        if options["picture"]:
            picture.draw(result, options["picture"])
        if options["json"]:
            self.stdout.write(json.dumps(report.as_document(result), indent=2))
            return
        self.stdout.write(visible(report.as_text(result, bar=options["bar"])))
        if options["picture"]:
            self.stdout.write(f"\nThe curve is in {options['picture']}.")

    def _against_log(self, documents: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        source = source_of(options, self._prices())
        versions = self._versions(documents) if source.log == "pointsman" else {}
        found = single_log.against_log(documents, source, versions)
        if options["json"]:
            policies = {name: report.agreement_document(one) for name, one in found.items()}
            self.stdout.write(json.dumps({"policies": policies}, indent=2))
            return
        for name, one in found.items():
            self.stdout.write(visible(report.agreement_text(name, one)))

    def _versions(self, documents: Mapping[str, Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
        """Return the versions of the policies' workload, as far as this instance has them."""
        named = {str(document.get("workload")) for document in documents.values()}
        try:
            found = list(PolicyVersion.objects.filter(workload__name__in=named))
        except DatabaseError as error:
            self.stderr.write(
                f"Continuing without this instance's versions, which can't be read: {str(error).strip()}."
            )
            return {}
        return {version.number: version.document for version in found} if len(named) == 1 else {}

    def _tasks(self, options: Mapping[str, Any]) -> Iterator[Task]:
        if options["tasks"] in RECORDED:
            return iter(RECORDED[options["tasks"]]())
        return open_tasks(source_of(options, self._prices()))

    def _prices(self) -> Prices:
        """Return the catalogue's prices; none without a database, because a file with costs needs no other prices."""
        try:
            return dollars_per_million()
        except DatabaseError as error:
            self.stderr.write(
                f"Continuing without the catalogue's prices, which can't be read: {str(error).strip()}."
            )
            return {}


def _refuse_unused(options: Mapping[str, Any]) -> None:
    """Raise `ValueError` for an option that would be ignored, so that nobody takes it for applied."""
    bar = options["bar"]
    if bar is not None and not 0 <= bar <= 1:
        raise ValueError("--bar is a share from 0 to 1.")
    kind, names = (
        "A log with one model per task",
        ["sweep", "score", "picture", "bar"] if options["log"] else [],
    )
    if options["tasks"] in RECORDED:
        kind, names = (
            f"The included {options['tasks']}",
            ["log", "mapping", "grade", "grades", "latency_unit"],
        )
    if unused := [name for name in names if options[name] not in ("", None)]:
        raise ValueError(f"{kind} takes no --{unused[0].replace('_', '-')}.")


def _document(name: str) -> dict[str, Any]:
    """Return a policy's document from a file or from this instance."""
    workload, _, number = name.rpartition("/")
    if not Path(name).is_file() and number.isdigit():
        version = PolicyVersion.objects.filter(workload__name=workload, number=int(number)).first()
        if version is None:
            raise ValueError(f"There is no file {name}, and no version {number} of a workload {workload!r}.")
        return dict(version.document)
    return load(Path(name).read_bytes())
