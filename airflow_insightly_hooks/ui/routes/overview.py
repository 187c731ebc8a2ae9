"""The first page: workflows, receivers, accounts."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from airflow_insightly_hooks.ui.access import AccessDep
from airflow_insightly_hooks.ui.rendering import RendererDep

__all__ = ["router"]

router = APIRouter()


@router.get("/")
def overview(access: AccessDep, render: RendererDep) -> HTMLResponse:
    """Show the workflows that the person may see."""
    return render("overview.html", dag_ids=sorted(access.dag_ids))
