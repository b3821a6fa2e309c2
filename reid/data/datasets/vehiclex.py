"""VehicleX: 1 362 vehicles drawn by a game engine, as given out for the AI City Challenge 2020.

Yao et al., Simulating Content Consistent Vehicle Datasets with Attribute Descent, ECCV 2020; Tang
et al., PAMTRI, ICCV 2019. It has training images only: `query` and `gallery` are empty, so that it
may be a source and never a target.

Folder: `image_train`, holding .jpg files named

    PID_cCAMERA_NUMBER.jpg        0001_c006_12.jpg

    PID        1 to 1362
    CAMERA     6 to 36, here from 0
    NUMBER     of the image, in one or more parts
"""

import os
import re

import numpy as np

from reid.data.datasets import reading
from reid.types import Dataset, Split

NAME = "vehiclex"
TRAIN = "image_train"
ARCHIVE_NAMES = ("AIC20_ReID_Simulation", "VehicleX")
FIRST_CAMERA = 6
GRAMMAR = reading.Grammar(
    pattern=re.compile(r"(?P<pid>\d+)_c0*(?P<cam>[6-9]|[12]\d|3[0-6])(?:_\w+)*\.jpg"),
    form="PID_cCAMERA_NUMBER.jpg (CAMERA 6 to 36)",
    example="0001_c006_12.jpg",
)
PUBLISHED = {"train identities": 1_362}


def load(root: str | os.PathLike[str], *, strict: bool = False) -> Dataset:
    """Read the training table of VehicleX from its folder, or the folder that holds it.

    Raises ValueError as `market1501.load` does.
    """
    folder = reading.find_folder(root, title="VehicleX", inside=TRAIN, archive_names=ARCHIVE_NAMES)
    train = reading.read_named(folder / TRAIN, GRAMMAR, first_camera=FIRST_CAMERA, keep_junk=False)
    reading.require_identities(train, where=folder / TRAIN)
    numbers = np.zeros(0, dtype=np.int64)
    nothing = Split(path=np.zeros(0, dtype=np.str_), pid=numbers, camid=numbers)
    dataset = Dataset(name=NAME, root=str(folder), train=train, query=nothing, gallery=nothing)
    return reading.as_published(dataset, PUBLISHED, strict=strict)
