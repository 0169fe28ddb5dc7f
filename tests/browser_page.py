"""A page in a browser, and what a user does there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Page:
    """A file that a browser of selenium's shows; ``run`` takes JavaScript."""

    def __init__(self, driver: Any, path: Path) -> None:
        self.driver, self.run = driver, driver.execute_script
        driver.get(path.as_uri())

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def find_all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def click(self, *selectors: str) -> None:
        for selector in selectors:
            self.find(selector).click()

    def press(self, *keys: str) -> None:
        self.find("body").send_keys(*keys)

    def touch(self, kind: str, fingers: list[dict[str, float]]) -> None:
        self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    def wait(self, condition: str) -> None:
        """Until what a script says is true."""
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, 20).until(lambda _: self.run(f"return {condition}"))

    def tip(self) -> str:
        """What the tooltip says, which is shown, and within the window."""
        tip = self.find("#tip")
        assert tip.is_displayed()
        box, width = tip.rect, self.run("return innerWidth")
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width
        return str(tip.text)


@contextlib.contextmanager
def window(driver: Any, width: int, density: float = 1) -> Iterator[None]:
    """Of that width and density; nothing overflows, nothing is loaded, and the console stays empty."""
    size = {"width": width, "height": 900, "deviceScaleFactor": density, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield
    run = driver.execute_script
    too_wide = "return [document.documentElement, ...document.querySelectorAll('.scroll, figure')]"
    too_wide += ".filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.tagName)"
    assert run("return [innerWidth, devicePixelRatio]") == [width, density]
    assert run(too_wide) == []
    assert run("return performance.getEntriesByType('resource').length") == 0
    assert driver.get_log("browser") == []
