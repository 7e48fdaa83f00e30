"""What every page promises: complete in itself, harmless, readable without seeing it."""

import base64
import io
import itertools

from page_reader import EVIL, Reader
from PIL import Image

PLAIN = "Ada"


class PageContract:
    """The tests of a page; a class that derives from it says which page, and what is on it.

    Attributes:
        sections: What the list at the top leads to, in its order.
        alts: What is said of each picture, in their order.
        texts: How many times the text of the page stands on it, at least.
        scripts: How many there are.
    """

    sections: list[str]
    alts: list[str]
    texts: int
    scripts = 0

    def html(self, text):
        """The page, with everything that it can show and ``text`` wherever text can stand."""
        raise NotImplementedError

    def read(self):
        return Reader(self.html(PLAIN))

    def test_every_text_is_escaped(self):
        plain, evil = self.read(), Reader(self.html(EVIL))
        assert evil.tags == [
            (tag, {name: value and value.replace(PLAIN, EVIL) for name, value in each.items()})
            for tag, each in plain.tags
        ]
        words = "".join(evil.words)
        assert words == "".join(plain.words).replace(PLAIN, EVIL)
        assert words.count(EVIL) >= self.texts

    def test_every_picture_has_a_description_and_travels_inside_the_page(self):
        page = self.read()
        assert [alt.replace("\xa0", " ") for alt in page.alts] == self.alts
        for attributes in page.all("img"):
            head, _, data = attributes["src"].partition(",")
            assert head == "data:image/png;base64"
            Image.open(io.BytesIO(base64.b64decode(data, validate=True))).load()

    def test_nothing_is_loaded_from_elsewhere(self):
        text = self.html(PLAIN)
        assert [word for word in ("http", "@import", "url(") if word in text] == []
        assert Reader(text).all("link") == []
        assert Reader(text).all("script") == [{}] * self.scripts

    def test_every_section_can_be_reached(self):
        page = self.read()
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        inside = [each["href"][1:] for each in page.all("a") if each["href"].startswith("#")]
        assert inside == self.sections
        labels = [each["aria-labelledby"] for _, each in page.tags if "aria-labelledby" in each]
        assert set(inside + labels) <= set(ids)

    def test_it_can_be_read_without_seeing_it(self):
        page = self.read()
        assert page.all("html") == [{"lang": "en"}]
        assert [each for each in page.all("meta") if each.get("name") == "viewport"]
        assert all(each.get("scope") in {"col", "row"} for each in page.all("th"))

    def test_levels_of_headings_leave_none_out(self):
        tags = [tag for tag, _ in self.read().tags]
        levels = [int(tag[1]) for tag in tags if tag in {"h1", "h2", "h3", "h4", "h5", "h6"}]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
