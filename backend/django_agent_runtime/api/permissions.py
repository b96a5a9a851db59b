"""Who calls the API: a signed-in user, or the holder of an anonymous session's token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib.auth.models import AnonymousUser
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, SessionAuthentication, TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.settings import api_settings

from django_agent_runtime.principals import Principal
from django_agent_runtime.runtime_conf import get_agent_runtime_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.models import Model
    from rest_framework.request import Request
    from rest_framework.views import APIView

TOKEN_HEADER = "X-Anonymous-Token"  # noqa: S105
TOKEN_PARAMETER = "anonymous_token"  # noqa: S105


class AnonymousSessionAuthentication(BaseAuthentication):
    """Takes the token of a session of `ANONYMOUS_SESSION_MODEL`.

    It is in the header `X-Anonymous-Token`, or else in `?anonymous_token=`. `request.user` stays anonymous, and
    `request.auth` is the session.
    """

    def authenticate(self, request: Request) -> tuple[AnonymousUser, Model] | None:
        """The session, or None for a request without a token.

        Raises:
            AuthenticationFailed: The token is of no session, or of one that has expired.
        """
        token = request.headers.get(TOKEN_HEADER) or request.query_params.get(TOKEN_PARAMETER)
        model = find_session_model()
        if not token or model is None:
            return None
        # No database keeps a NUL in a text, and PostgreSQL refuses to look for one.
        session = None if "\0" in token else model._default_manager.filter(token=token).first()  # noqa: SLF001
        if session is None or _has_expired(session):
            raise AuthenticationFailed("The anonymous session is not known, or has expired.")
        return AnonymousUser(), session

    def authenticate_header(self, request: Request) -> str:
        """What a refusal names as the way in."""
        return "AnonymousSession"


class AnonymousSessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # as its package
    """Says in the OpenAPI description where the token goes."""

    target_class = AnonymousSessionAuthentication
    name = "anonymousSession"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """The header; `?anonymous_token=` is for who cannot set one."""
        return {"type": "apiKey", "in": "header", "name": TOKEN_HEADER}


class IsAuthenticatedOrAnonymousSession(BasePermission):
    """Lets signed-in users and holders of a session in."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Whether the caller is somebody."""
        return not principal_of(request).is_nobody


def with_anonymous_sessions() -> tuple[type[BaseAuthentication], ...]:
    """The ways in that the project has set, and anonymous sessions."""
    defaults: Sequence[Any] = api_settings.DEFAULT_AUTHENTICATION_CLASSES
    return (*defaults, AnonymousSessionAuthentication)


def every_way_in() -> tuple[type[BaseAuthentication], ...]:
    """For addresses that have no view of the project's own: also Django REST framework's tokens, where installed."""
    found = list(with_anonymous_sessions())
    if apps.is_installed("rest_framework.authtoken") and TokenAuthentication not in found:
        found.append(TokenAuthentication)
    return (*found, SessionAuthentication)


def principal_of(request: Request) -> Principal:
    """Who sends a request, by what the view's authentication found."""
    principal = Principal.of_user(request.user)
    model = find_session_model()
    if principal.is_nobody and model is not None and isinstance(request.auth, model):
        return Principal.of_session(request.auth)
    return principal


def find_session_model() -> type[Model] | None:
    """The model that `ANONYMOUS_SESSION_MODEL` names; None where the setting names none.

    Raises:
        LookupError: It names one that is not installed.
    """
    name = get_agent_runtime_settings().anonymous_session_model
    return apps.get_model(name) if name else None


def _has_expired(session: Any) -> bool:
    expired = getattr(session, "is_expired", None)
    if expired is not None:
        return bool(expired() if callable(expired) else expired)
    expires_at = getattr(session, "expires_at", None)
    return expires_at is not None and expires_at <= timezone.now()
