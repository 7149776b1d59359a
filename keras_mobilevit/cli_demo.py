"""The command `serve_demo`, which runs until it is interrupted."""

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from keras_mobilevit import reports


def serve_demo(
    values: flags.FlagValues, arguments: Sequence[str]
) -> reports.Report | None:
    """Runs files in the browser: a page, on this machine, until Ctrl-C."""
    if not arguments:
        raise ValueError("serve_demo takes FILE.tflite [FILE.tflite ...]")
    if not (values.serve or values.output_dir):
        raise ValueError("--noserve needs --output_dir. Received: neither")
    from keras_mobilevit.tflite import demo

    with tempfile.TemporaryDirectory() as folder:
        made = demo.assemble_demo(
            arguments,
            values.output_dir or Path(folder, "demo"),
            values.runtime,
            values.overwrite,
        )
        if not values.serve:
            return made
        with demo.serve_demo(made, values.port) as (served, server):
            _announce(served, values.json)
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()
    return None


def _announce(report: Any, as_json: bool) -> None:
    """Prints where the page is before the command is done."""
    text = report.to_json() if as_json else f"{report}\n\nCtrl-C ends it."
    print(text, flush=True)
