"""What a page that fails answers, and what is logged of it: neither a query nor what somebody searched for."""

from typing import Any

import structlog
from datasette import hookimpl
from datasette.utils.asgi import Base400, Response
from datasette.views.base import DatasetteError
from markupsafe import Markup

from audit_svc.errors import AuditError
from service_kit.observing.logs import describe_exception

log = structlog.get_logger(__name__)

DATASETTES_OWN = "datasette.handle_exception"
"""The plugin whose place this one takes. It prints local variables to stdout, and waits until somebody reads them."""


@hookimpl
async def handle_exception(datasette: Any, request: Any, exception: Exception) -> Response:
    """The answer of Datasette's own handler."""
    status, about, message = 500, dict[str, Any](), "the service's log has the error"
    if isinstance(exception, Base400):
        status, message = exception.status, str(exception.args[0])
    elif isinstance(exception, AuditError):
        status, message = 503, str(exception)
    elif isinstance(exception, DatasetteError):
        status, about, message = exception.status, exception.error_dict or {}, exception.message
        message = Markup(message) if exception.message_is_html else message  # noqa: S704 - Datasette's own HTML
    else:
        log.error("ui.failed", **describe_exception(exception))
    told = {**about, "ok": False, "error": message, "status": status, "title": getattr(exception, "title", None)}
    if request.path.endswith(".json"):
        return Response.json(told, status=status)
    template = datasette.jinja_env.select_template([f"{status}.html", "error.html"])
    told |= {"urls": datasette.urls, "app_css_hash": datasette.app_css_hash(), "menu_links": list}
    return Response.html(await template.render_async(told), status=status)
