"""A visit to the page of digitd-web.service, with the token in a file: looks at the 7s, and labels the first if told how.

Prints what the page answers. Standard library only.
"""

import http.cookiejar
import re
import sys
import urllib.parse
import urllib.request
from pathlib import Path

PAGE = "http://127.0.0.1:9788"


def main(token: str, label: str = "") -> None:
    """Open the address that the administrator gave, then what it leads to."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    browser.open(f"{PAGE}/?{urllib.parse.urlencode({'token': Path(token).read_text().strip()})}").close()
    grid = browser.open(f"{PAGE}/grid?digit=7").read().decode()
    found = re.search(r'name="answer" value="([^"]+)"', grid)
    if found is None:
        sys.exit(f"expected answers. Received: {grid}")
    if label:
        form = urllib.parse.urlencode({"answer": found[1], "label": label}).encode()
        browser.addheaders = [("Origin", PAGE), ("Accept", "application/json")]
        print(browser.open(f"{PAGE}/label", form).read().decode())


main(*sys.argv[1:])
