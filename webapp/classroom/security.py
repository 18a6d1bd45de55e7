"""The headers that every answer carries."""

from __future__ import annotations

from flask import Flask, Response, request

# Nothing inline and nothing from elsewhere; `data:` is for the charts, which are rendered here.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "img-src 'self' data:",
        "script-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)


def init_app(app: Flask) -> None:
    app.after_request(add_headers)


def add_headers(response: Response) -> Response:
    headers = response.headers
    headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "same-origin"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    if request.endpoint == "static":
        return response
    # Every page shows who is logged in, and many show marks. On a shared school computer the Back
    # button must not bring them up again after the logout.
    headers["Cache-Control"] = "no-store"
    return response
