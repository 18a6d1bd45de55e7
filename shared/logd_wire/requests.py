"""Types of the events for requests to a site: what the answer was decides the type.

A page view is a GET that showed a page. Whoever counts page views, or reads who opened what, must
not count a refusal or a redirect among them.
"""

from __future__ import annotations

PAGE_VIEW = "page_view"
REQUEST_ANSWERED = "request_answered"  # by success to another method than GET
REQUEST_REDIRECTED = "request_redirected"
REQUEST_REFUSED = "request_refused"
REQUEST_FAILED = "request_failed"

# Earlier clients sent all of these as `page_view`.
OTHER_REQUESTS = frozenset({REQUEST_ANSWERED, REQUEST_REDIRECTED, REQUEST_REFUSED, REQUEST_FAILED})

NOT_MODIFIED = 304  # the browser shows the page that it has


def request_type(method: str, status: int) -> str:
    """Returns the type of the event for a request of that method, answered with that status."""
    if status >= 500:
        return REQUEST_FAILED
    if status >= 400:
        return REQUEST_REFUSED
    if method == "GET" and (status < 300 or status == NOT_MODIFIED):
        return PAGE_VIEW
    return REQUEST_REDIRECTED if status >= 300 else REQUEST_ANSWERED
