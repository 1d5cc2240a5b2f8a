"""What a person reads of a page."""

from html.parser import HTMLParser

_WITHOUT_END = ("meta", "img", "input")


class _Reader(HTMLParser):
    """Fails on a tag that is closed without being open; collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _WITHOUT_END:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """`<path/>`, as SVG has it."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.text.append(" ")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def text_of(page: str) -> str:
    """The text of a page with single spaces; its tags must be balanced."""
    reader = _Reader()
    reader.feed(page)
    assert reader.open == []
    return " ".join("".join(reader.text).split())
