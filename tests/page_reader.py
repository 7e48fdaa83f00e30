"""Read a page as a browser would, and insist that it is well formed."""

from html.parser import HTMLParser
from pathlib import Path

EVIL = """<script>alert('x')</script>"><img src=x onerror=y>&amp;'"""
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Reader(HTMLParser):
    """Collects tags, attributes, text and tables, and insists that every tag is closed.

    ``tables`` has the rows of each table by its id, ``handlers`` the names of attributes that run
    code, such as ``onerror``.
    """

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.words, self.tables, self.rows = [], [], [], {}, None
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join("".join(self.words).split())
        self.alts = [attributes["alt"] for attributes in self.all("img")]
        self.handlers = [name for _, each in self.tags for name in each if name.startswith("on")]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows = self.tables.setdefault(dict(attrs).get("id"), [])
        if self.rows is not None and tag == "tr":
            self.rows.append([])
        if self.rows is not None and tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self.rows = None

    def handle_data(self, data):
        self.words.append(data)
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] = " ".join([*self.rows[-1][-1].split(), *data.split()])

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(path):
    """Return the page in a file."""
    return Reader(Path(path).read_text("utf-8"))
