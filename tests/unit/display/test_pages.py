"""The head that all pages share."""

from __future__ import annotations

import re

from rsp_rl.display.pages import asset, page


def test_a_page_admits_nothing_but_what_is_named() -> None:
    policy = "default-src 'none'; style-src 'unsafe-inline'; {}base-uri 'none'; form-action 'none'"
    for admitted, directives in ((), ""), (("img-src data:",), "img-src data:; "):
        text = page("Title", "<p></p>\n", admitted=admitted)
        assert re.findall('Policy" content="(.*)">', text) == [policy.format(directives)]


def test_a_pages_title_is_text_and_its_body_markup() -> None:
    text = page("a & <b>", "<p>$5</p>\n", style="p { margin: 0; }\n")
    assert "<title>a &amp; &lt;b&gt;</title>" in text
    assert "<body>\n<p>$5</p>\n</body>" in text
    assert f"<style>\n{asset('rsp_rl.display', 'page.css')}\np {{ margin: 0; }}\n</style>" in text
