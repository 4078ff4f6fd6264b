"""A BERT to start from: one that ships with the course, or one of a model hub."""

import shutil
from pathlib import Path

from helpers import session
from helpers.data import answers

PRESETS = session.ROOT / "data" / "presets"
SHIPPED = "bert_reviews"  # what is used when a hub's preset cannot be had
HUBS = {"kaggle": "https://www.kaggle.com/robots.txt", "hf": "https://huggingface.co/robots.txt"}  # is it there?
FORMS = {"kaggle": "owner/model/framework/variation", "hf": "owner/model"}  # after `://`; a version may follow


def find_preset(name):
    """What `from_preset` can load: a folder of data/presets, or a hub's preset, which was loaded once to be sure.

    Prints a line and returns the shipped preset when the hub does not answer within 3 seconds or sends damage; a
    download that stalls later is not limited. Raises ValueError for an unknown name.
    """
    if (PRESETS / name / "config.json").is_file():
        return str(PRESETS / name)
    from keras_hub.models import BertBackbone, BertTokenizer

    handle = BertBackbone.presets.get(name, {}).get("kaggle_handle", name)
    hub, _, place = handle.partition("://")
    parts = place.split("/")
    if hub not in HUBS or len(parts) <= FORMS[hub].count("/") or not all(part.strip(".") for part in parts):
        shipped = ", ".join(sorted(file.parent.name for file in PRESETS.glob("*/config.json")))
        forms = ", ".join(f"{known}://{form}" for known, form in FORMS.items())
        known = f"with the course: {shipped}; of a hub: {', '.join(BertBackbone.presets)}, {forms}"
        raise ValueError(f"no preset {name!r}; {known}")
    reason = f"{HUBS[hub].split('/')[2]} does not answer"
    if answers(HUBS[hub]):  # a silent server would hold KerasHub for minutes
        try:
            pieces = BertTokenizer.from_preset(name).vocabulary_size()
            rows = BertBackbone.from_preset(name).vocabulary_size
            if pieces == rows:
                return name
            reason = f"its tokeniser has {pieces:,} pieces and its model {rows:,}"
        except Exception as error:  # hubs, HDF5 and JSON raise errors of many kinds
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        _forget(hub, place)
    print(f"Preset: {SHIPPED}, which ships with the course, because {name} cannot be had ({reason}).")
    return str(PRESETS / SHIPPED)


def _forget(hub, place):
    """Delete what the hub's client keeps of a preset, so that a damaged file is not used next time."""
    from huggingface_hub import constants
    from kagglehub import config

    folder = Path(constants.HF_HUB_CACHE) / f"models--{place.replace('/', '--')}"
    if hub == "kaggle":
        folder = Path(config.get_cache_folder()).joinpath("models", *place.split("/")[:4])
    shutil.rmtree(folder, ignore_errors=True)
