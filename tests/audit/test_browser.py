"""The page in a real browser: no error, pictures load, tables sort; skipped without Chromium."""

import re
import shutil
import subprocess

import pytest
from audits import images, network, quietly
from page_reader import EVIL

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
PROBE = """
<script>
const said = [];
const images = [...document.images];
images.forEach((each) => { each.loading = "eager"; });
Promise.all(images.map((each) => each.decode())).then(() => {
  said.push(`loaded ${images.every((each) => each.naturalWidth > 0)} of ${images.length}`);
  const table = document.querySelector("#summary");
  const head = table.tHead.rows[0].cells[5], cells = () =>
    [...table.tBodies[0].rows].map((row) => row.cells[5].dataset.value).filter((each) => each);
  const sorted = (values) => values.every((each, i) => i === 0 || +values[i - 1] <= +each);
  head.querySelector("button").click();
  said.push(`rising ${sorted(cells())} ${head.getAttribute("aria-sort")}`);
  head.querySelector("button").click();
  said.push(`falling ${sorted(cells().reverse())} ${head.getAttribute("aria-sort")}`);
  table.tHead.rows[0].cells[0].querySelector("button").click();
  said.push(`one column ${table.querySelectorAll("[aria-sort]").length}`);
  said.push(`wide ${document.documentElement.scrollWidth <= innerWidth}`);
  document.title = "said: " + said.join("; ");
}).catch((error) => { document.title = "said: " + error; });
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("audit")
    given = images(2, names=["a", EVIL], class_names=[EVIL, EVIL, EVIL])
    audit = quietly(network(), given, out, methods=["gradient", "grad-cam", "rise"])
    return audit.write(out)


def browsed(page, folder, *words):
    """Return what Chromium prints on standard output and on standard error."""
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--v=0",
    ]  # fmt: skip
    done = subprocess.run(
        [CHROMIUM, *options, *words, page.as_uri()],
        capture_output=True, text=True, timeout=180, check=True,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


@pytest.mark.parametrize("size", ["1200,900", "500,900"])
def test_pictures_load_tables_sort_and_nothing_is_wider_than_the_screen(page, tmp_path, size):
    probed = tmp_path / "report.html"
    probed.write_text(page.read_text().replace("</body>", PROBE + "</body>"))
    words = ["--dump-dom", f"--window-size={size}", "--virtual-time-budget=5000"]
    for attempt in range(5):  # on a busy machine the page may be printed before it has spoken
        text, console = browsed(probed, tmp_path / str(attempt), *words)
        said = re.search(r"<title>said: (.*?)</title>", text)
        if said:
            break
    assert console == []
    assert said, "the page never spoke"
    said = said.group(1)
    assert said.split("; ") == [
        "loaded true of 17",
        "rising true ascending",
        "falling true descending",
        "one column 1",
        "wide true",
    ]
    assert "alert(" not in re.sub(r"&lt;script.*?/script&gt;", "", text)


def test_a_screenshot_is_taken_and_is_no_empty_page(page, tmp_path):
    from PIL import Image

    target = tmp_path / "page.png"
    _, console = browsed(page, tmp_path, f"--screenshot={target}", "--window-size=900,1600")
    assert console == []
    assert len(Image.open(target).convert("RGB").getcolors(1 << 20)) > 200
