"""What the tests of the page share."""

import pathlib
import shutil

TESTS = pathlib.Path(__file__).parent
NODE = shutil.which("node")
LABELS = ["daisy", "rose, red", "Löwenzahn", "d", "e", "f", "蒲公英"]
