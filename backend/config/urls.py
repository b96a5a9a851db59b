"""Every address of the reference site."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import Resolver404, include, path, re_path, resolve
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.authtoken.views import ObtainAuthToken
from rest_framework.throttling import ScopedRateThrottle

from django_agent_runtime.api.problems import answer_not_found, answer_server_error

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

API_PREFIX = "/api/"


class ObtainTokenView(ObtainAuthToken):
    """Exchange a user name and password for an API token; limited to slow down guessing."""

    throttle_classes = (ScopedRateThrottle,)
    throttle_scope = "token"


@csrf_exempt
def answer_unknown(request: HttpRequest) -> HttpResponseBase:
    """The 404 of every address under /api/ that nothing else answers; with DEBUG, Django's would be a page."""
    with_slash = f"{request.path_info}/"
    return answer_not_found(request, hint=with_slash if _is_known(with_slash) else "")


def _is_known(path_info: str) -> bool:
    try:
        return resolve(path_info).func is not answer_unknown
    except Resolver404:
        return False


def handler404(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Problem details under /api/, Django's page elsewhere."""
    if request.path.startswith(API_PREFIX):
        return answer_not_found(request)
    return defaults.page_not_found(request, exception)


def handler500(request: HttpRequest) -> HttpResponseBase:
    """Problem details under /api/, Django's page elsewhere."""
    if request.path.startswith(API_PREFIX):
        return answer_server_error()
    return defaults.server_error(request)


urlpatterns = [
    path("", include("backend.apps.python_agent.urls")),
    path("", include("backend.apps.agents.urls")),
    path("", include("backend.apps.graphs.urls")),
    path("health/", include("django_agent_runtime.urls")),
    path("admin/", admin.site.urls),
    path("api/token/", ObtainTokenView.as_view(), name="token"),
    path("api/schema/", SpectacularAPIView.as_view(), name="api-schema"),
    path("api/docs/", SpectacularSwaggerView.as_view(url_name="api-schema"), name="api-docs"),
    re_path(r"^api/", answer_unknown),
    # Empty without DEBUG: a web server, or whatever stands before the site, then serves STATIC_ROOT.
    *staticfiles_urlpatterns(),
]
