"""A page of HTML as PDF, by WeasyPrint (optional extra `pdf`); nothing is loaded for it."""

from __future__ import annotations

from collections.abc import Callable

from rebrain_node.errors import SettingsError


def pdf_writer() -> Callable[[str], bytes]:
    """Return what makes a PDF of a page.

    Raises
    ------
    SettingsError
        WeasyPrint or the library Pango is missing; says what to install.
    """
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except (ImportError, OSError) as error:
        raise SettingsError(
            "a PDF needs WeasyPrint and the library Pango: install the extra `pdf` "
            "(docs/how-to/install.md), or write the page without --pdf and print it in a browser"
        ) from error
    pictures = URLFetcher(allowed_protocols={"data"}, allow_redirects=False)

    def write(page: str) -> bytes:
        printed = page.encode("utf-8", "replace").decode("utf-8")  # surrogates of a broken log
        return bytes(HTML(string=printed, url_fetcher=pictures).write_pdf())

    return write
