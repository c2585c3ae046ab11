"""`/`: what this is and, in development, what is running."""

from __future__ import annotations

import platform

from flask import Blueprint, current_app, render_template

from app.settings import ANSWERS, Settings

blueprint = Blueprint("pages", __name__)
LINKED = ("/api/", "/healthz/")  # addresses below these are shown, where they need nothing filled in


@blueprint.get("/")
def index() -> str:
    settings: Settings = current_app.extensions["settings"]
    rules = [rule for rule in current_app.url_map.iter_rules() if "GET" in (rule.methods or ())]
    links = sorted({rule.rule for rule in rules if rule.rule.startswith(LINKED) and not rule.arguments})
    return render_template("index.html", service=ANSWERS, links=links, details=describe(settings))


def describe(settings: Settings) -> dict[str, str]:
    """What is running, for whoever develops it; in production nothing, for whoever looks."""
    if settings.production:
        return {}
    plan = settings.plan()
    return {
        "Version": settings.app_version,
        "Environment": settings.app_env,
        "Server": f"{ANSWERS['server']}, {plan.workers} {settings.worker_class} workers, {plan.threads} threads each",
        "Sized by": plan.reason,
        "Database": settings.database_url.partition(":")[0],
        "Metrics": f"{settings.metrics_bind}:{settings.metrics_port}/metrics",
        "Python": platform.python_version(),
        "Template": ANSWERS["template_version"],
    }
