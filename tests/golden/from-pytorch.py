"""What the Python blocks of docs/guides/from-pytorch.md print: tests/golden/from-pytorch.json.

    python3 tests/golden/from-pytorch.py        Debian package python3-torch

The blocks run one after the other, as one program. The test compares the numbers that each prints
with those of the TypeScript block behind it, and the blocks with those that were run here.
"""

import contextlib
import io
import json
import pathlib
import re

import torch

HERE = pathlib.Path(__file__).parent
guide = (HERE.parents[1] / "docs" / "guides" / "from-pytorch.md").read_text()

torch.set_printoptions(precision=6, sci_mode=False, threshold=10_000, linewidth=10_000)
names = {}
blocks = []
for code in re.findall(r"^```python\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    blocks.append({"code": code, "prints": printed.getvalue()})

text = json.dumps({"madeWith": f"PyTorch {torch.__version__}", "blocks": blocks}, indent=1)
(HERE / "from-pytorch.json").write_text(f"{text}\n")
print(f"{len(blocks)} blocks")
