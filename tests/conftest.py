"""What holds for all tests: commands write as into a pipe, whatever the environment says of terminals and colours."""

import os

for _name in ("FORCE_COLOR", "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "GITHUB_ACTIONS", "TERMINAL_WIDTH"):
    os.environ.pop(_name, None)  # before typer is imported, which reads some of them then
