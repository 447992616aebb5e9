"""Headless Chromium: what a page asks of the network, what it logs, how wide it is, how legible."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Self

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
# The contrast of every visible text with what is painted behind it, by WCAG's formula; canvas reads any CSS colour.
CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const rgba = (css) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const luminance = (c) => {
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = c.slice(0, 3).map((v) => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (e) => {
  for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] > 250) return c; }
  return [255, 255, 255, 255];
};
const found = [];
for (const e of document.querySelectorAll("body *")) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  const style = getComputedStyle(e);
  if (!own || !e.getClientRects().length || style.visibility === "hidden") continue;
  if (e.closest("script, style, .sr, svg")) continue;
  const [a, b] = [luminance(rgba(style.color)), luminance(behind(e))].sort((p, q) => q - p);
  found.push([(a + 0.05) / (b + 0.05), e.tagName + "." + e.className + ": " + e.textContent.slice(0, 40)]);
}
return found;
"""


class Browser:
    """One Chromium for all tests; `visit` forgets what earlier pages did."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    @classmethod
    def open(cls, profile: Path) -> Self:
        """Starts Chromium with a fresh profile."""
        chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
        if not chromium or not chromedriver:
            pytest.fail("Chromium is missing: install the Debian packages `chromium` and `chromium-driver`")
        options = Options()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(chromedriver))
        driver.execute_cdp_cmd("Network.enable", {})
        return cls(driver)

    def close(self) -> None:
        """Ends Chromium."""
        self.driver.quit()

    def visit(self, page: Path) -> None:
        """Opens a page of the disk, in a light window 1,280 pixels wide."""
        self.resize(1280)
        self.prefer("light")
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        self.driver.get(page.as_uri())

    def prefer(self, scheme: str) -> None:
        """What the reader's system asks for: `light` or `dark`."""
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )

    def resize(self, width: int) -> None:
        """The width of the window."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def errors(self) -> list[str]:
        """What the console says at the level of errors: exceptions, refused loads, violations of the policy."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def requests(self) -> list[str]:
        """Every address asked for but the page itself and data within it."""
        entries: list[dict[str, Any]] = self.driver.get_log("performance")  # type: ignore[no-untyped-call]
        events = [json.loads(entry["message"])["message"] for entry in entries]
        addresses = [str(e["params"]["request"]["url"]) for e in events if e["method"] == "Network.requestWillBeSent"]
        return [a for a in addresses if not a.startswith(("data:", self.driver.current_url.split("#")[0]))]

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns in the page."""
        return self.driver.execute_script(script, *arguments)

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(self.run("return document.documentElement.scrollWidth - innerWidth"))

    def contrasts(self) -> list[tuple[float, str]]:
        """The contrast ratio of each visible text, lowest first."""
        return sorted((float(ratio), str(what)) for ratio, what in self.run(CONTRAST))
