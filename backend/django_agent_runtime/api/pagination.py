"""Pages of lists that grow at their beginning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from rest_framework.request import Request
    from rest_framework.views import APIView


class NewestFirstPagination(CursorPagination):
    """Newest first; a page does not move when rows are added."""

    ordering = ("-created_at", "-id")
    page_size = 50
    max_page_size = 200
    page_size_query_param = "page_size"

    def paginate_queryset(
        self, queryset: QuerySet[Any], request: Request, view: APIView | None = None
    ) -> list[Any] | None:
        """The rows of the page that is asked for.

        Raises:
            NotFound: The cursor names no place in the list, such as a day that there never was.
        """
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValidationError, ValueError, OverflowError) as error:
            # The first page is asked for without one.
            if self.cursor is None:
                raise
            raise NotFound(self.invalid_cursor_message) from error
