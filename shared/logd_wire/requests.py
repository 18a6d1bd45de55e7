"""The types of events for requests to a site: the answer to the request decides the type."""

from __future__ import annotations

PAGE_VIEW = "page_view"
REQUEST_ANSWERED = "request_answered"  # the answer was a success, to another method than GET
REQUEST_REDIRECTED = "request_redirected"
REQUEST_REFUSED = "request_refused"
REQUEST_FAILED = "request_failed"

# Earlier clients sent requests of all these types as `page_view`.
OTHER_REQUESTS = frozenset({REQUEST_ANSWERED, REQUEST_REDIRECTED, REQUEST_REFUSED, REQUEST_FAILED})

NOT_MODIFIED = 304  # the browser shows the page that it has in its cache


def request_type(method: str, status: int) -> str:
    """Returns the type of the event for a request with this method and an answer of this status."""
    if status >= 500:
        return REQUEST_FAILED
    if status >= 400:
        return REQUEST_REFUSED
    if method == "GET" and (status < 300 or status == NOT_MODIFIED):
        return PAGE_VIEW
    return REQUEST_REDIRECTED if status >= 300 else REQUEST_ANSWERED
