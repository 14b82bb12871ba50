"""What is common to all routes."""

from fastapi.routing import APIRoute

from api.routes import routers
from api.routing import StrictRoute

FORMS = {"upload_image", "upload_file"}


def test_every_route_that_takes_json_takes_it_by_the_letter():
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    taking = [route for route in routes if route.body_field is not None and route.name not in FORMS]
    assert len(taking) > 30
    assert [route.path for route in taking if not isinstance(route, StrictRoute)] == []
