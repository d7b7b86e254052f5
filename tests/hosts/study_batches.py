"""For `--import`: writes a digest of every training batch into a file of the run, and slows BasicSR down on request.

Works in the trainings' own processes alone, whose current folder is the study's.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from torch import Tensor


def note(run: str, *images: Tensor) -> None:
    digest = hashlib.sha256(b"".join(image.cpu().numpy().tobytes() for image in images)).hexdigest()
    with Path(f"batches-{run}.txt").open("a") as file:
        file.write(f"{digest}\n")


if "train" not in sys.argv:
    pass  # the study itself, maybe in the process of the tests
elif os.environ["STUDY_HOST"] == "basicsr":
    from contrastive_sr.hosts.basicsr.host import import_basicsr

    SRModel = import_basicsr("basicsr.models.sr_model").SRModel
    feed = SRModel.feed_data

    def feed_and_note(self: Any, data: dict[str, Any]) -> None:
        time.sleep(float(os.environ.get("STUDY_SLEEP", "0")))
        note(self.opt["name"], data["lq"], data["gt"])
        feed(self, data)

    SRModel.feed_data = feed_and_note
else:
    importlib.import_module("contrastive_sr.hosts.mmagic")  # MMagic cannot be imported without
    from mmagic.models.data_preprocessors import DataPreprocessor
    from mmengine.logging import MessageHub

    prepare = DataPreprocessor.forward

    def prepare_and_note(self: Any, data: dict[str, Any], training: bool = False) -> Any:
        prepared = prepare(self, data, training)
        note(MessageHub.get_current_instance().instance_name.split("_")[0], prepared["inputs"])
        return prepared

    DataPreprocessor.forward = prepare_and_note
