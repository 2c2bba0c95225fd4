"""Puts the public listener's app together; no logic of its own."""

from fastapi import FastAPI

from service import offline, routes
from service.problems import add_problem_handlers
from service.service import Service


def create_app(service: Service) -> FastAPI:
    """The public listener's app; the caller starts and stops `service`."""
    app = FastAPI(
        title="hlm-retrieval",
        summary="Sponsored-search retrieval: query text in, ads out.",
        version="1",
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours is metrics.py; theirs costs every request
    )
    app.state.service = service
    app.include_router(routes.router)
    app.include_router(offline.router)
    add_problem_handlers(app)
    return app
