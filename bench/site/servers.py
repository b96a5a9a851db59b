"""The site as an application for either kind of server."""

import os

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.site.settings")

asgi = get_asgi_application()
wsgi = get_wsgi_application()
