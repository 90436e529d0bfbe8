"""Tests of the page's script, `page.js`, in a headless Chromium."""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from support.report_pages import page_figures, render_report
from support.sweep_folders import BETA_BY_SIZE, SWEEPS

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

# Chooses every option of every menu, opens and closes a picture, and sorts a table twice.
USE_ALL_CONTROLS = """
<script>
for (const select of document.querySelectorAll("select")) {
  for (const option of select.options) {
    select.value = option.value;
    select.dispatchEvent(new Event("change"));
  }
  select.selectedIndex = 0;
  select.dispatchEvent(new Event("change"));
}
document.querySelector(".pictures img").click();
document.querySelector("dialog").click();
const heads = [...document.querySelector("table.sortable").tHead.rows[0].cells];
const column = heads.findIndex((head) => head.classList.contains("marked"));
heads[column].firstElementChild.click();
heads[column].firstElementChild.click();
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed to open the page")
@pytest.mark.parametrize("jobs", ["grid", "a search", "nothing finished"])
def test_page_js_draws_all_plots_in_chromium(make_sweep, tmp_path, jobs):
    html = render_report(make_sweep(*SWEEPS.get(jobs, (BETA_BY_SIZE, 11))))
    tried = tmp_path / "tried.html"
    if jobs == "grid":
        tried.write_text(html.replace("</body>", USE_ALL_CONTROLS + "</body>"))
    else:
        tried.write_text(html)
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--enable-logging=stderr"),
        *(f"--user-data-dir={tmp_path}/browser", "--window-size=1400,1000"),
        *("--virtual-time-budget=15000", "--dump-dom", tried.as_uri()),
    ]
    environment = os.environ | {"HOME": str(tmp_path)}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert "CONSOLE" not in ran.stderr, ran.stderr
    boxes = re.findall(r'<div class="plot([^"]*)" id="([a-z-]+)-plot"', ran.stdout)
    assert {box for _, box in boxes} == page_figures(html).keys()
    assert all("drawn" in classes for classes, _ in boxes)
    if jobs == "grid":
        assert ran.stdout.count('class="main-svg"') >= len(boxes)
        table = re.search(r"<caption>Settings and their main.*?</table>", ran.stdout, re.S)[0]
        marked = re.findall(r'data-value="([-\d.]+)"', table)
        rows = np.array(marked, float).reshape(4, -1)
        assert rows[:, 3].tolist() == sorted(rows[:, 3], reverse=True)
        assert 'aria-sort="descending"' in table
