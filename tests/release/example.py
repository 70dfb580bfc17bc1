"""Run the first python block of a page, as somebody does who has just installed the package: `python example.py README.md`."""

import re
import sys
from pathlib import Path

page = Path(sys.argv[1]).read_text("utf-8")
example = re.search(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
assert example, "the page has no python block"
exec(compile(example[1], sys.argv[1], "exec"))
