"""A BERT to start from: one that ships with the course, or one of a model hub."""

import shutil
from pathlib import Path

from helpers import session
from helpers.data import answers

PRESETS = session.ROOT / "data" / "presets"
SHIPPED = "bert_reviews"  # what is used when a hub's preset cannot be had
HUBS = {"kaggle": "https://www.kaggle.com/robots.txt", "hf": "https://huggingface.co/robots.txt"}  # is it there?


def find_preset(name):
    """What `from_preset` can load: a folder of data/presets, or a hub's preset, which was loaded once to be sure.

    Prints a line and returns the shipped preset when the hub does not answer within 3 seconds or sends damage; a
    download that stalls later is not limited. Raises ValueError for an unknown name.
    """
    if (PRESETS / name / "config.json").is_file():
        return str(PRESETS / name)
    from keras_hub.models import BertBackbone, BertTokenizer

    handle = BertBackbone.presets.get(name, {}).get("kaggle_handle", name)
    hub = HUBS.get(handle.split("://")[0])
    if not hub:
        shipped = ", ".join(sorted(file.parent.name for file in PRESETS.glob("*/config.json")))
        raise ValueError(f"no preset {name!r}; with the course: {shipped}; of a hub: {', '.join(BertBackbone.presets)}")
    reason = f"{hub.split('/')[2]} does not answer"
    if answers(hub):  # a silent server would hold KerasHub for minutes
        try:
            pieces, rows = (
                BertTokenizer.from_preset(name).vocabulary_size(),
                BertBackbone.from_preset(name).vocabulary_size,
            )
            if pieces == rows:
                return name
            reason = f"its tokeniser has {pieces:,} pieces and its model {rows:,}"
        except Exception as error:  # hubs, HDF5 and JSON raise errors of many kinds
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        _forget(handle)
    print(f"Preset: {SHIPPED}, which ships with the course, because {name} cannot be had ({reason}).")
    return str(PRESETS / SHIPPED)


def _forget(handle):
    """Delete what the hub's client keeps of a preset, so that a damaged file is not used next time."""
    from huggingface_hub import constants
    from kagglehub import config

    hub, place = handle.split("://")
    folder = Path(constants.HF_HUB_CACHE) / f"models--{place.replace('/', '--')}"
    if hub == "kaggle":  # owner/model/framework/variation; a version may follow
        folder = Path(config.get_cache_folder()).joinpath("models", *place.split("/")[:4])
    shutil.rmtree(folder, ignore_errors=True)
