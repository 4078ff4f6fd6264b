"""Make the preset bert_reviews_rated: two passes over IMDB's ratings, from bert_reviews on. It needs full IMDB.

python tools/second_stage.py [--output build/presets/bert_reviews_rated]
"""

import argparse
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import helpers
import keras
import keras_hub
import numpy as np
import tensorflow as tf
from tokenizers import BertWordPieceTokenizer

LENGTH, SHORTEST, BATCH = 64, 16, 64  # pieces of a row, pieces of the shortest part of a review, rows of a step
PASSES = 2


def rows_and_ratings(texts, ratings, tokenizer):
    """Parts of reviews as rows (N, 64) of int32 piece numbers, and the rating of the whole review (N,), 0 or 1."""
    vocabulary = {piece: number for number, piece in enumerate(tokenizer.get_vocabulary())}
    fast = BertWordPieceTokenizer(vocabulary, lowercase=True, strip_accents=True)
    rows, found = [], []
    for encoding, rating in zip(fast.encode_batch(texts, add_special_tokens=False), ratings):
        pieces = encoding.ids
        for part in (pieces[start : start + LENGTH - 2] for start in range(0, len(pieces), LENGTH - 2)):
            if len(part) >= SHORTEST:
                row = [tokenizer.cls_token_id, *part, tokenizer.sep_token_id]
                rows.append(row + [tokenizer.pad_token_id] * (LENGTH - len(row)))
                found.append(rating)
    return np.array(rows, "int32"), np.array(found, "int32")


def inputs(rows):
    mask = keras.ops.cast(rows != 0, "int32")
    return {"token_ids": rows, "segment_ids": keras.ops.zeros_like(mask), "padding_mask": mask}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "presets" / "bert_reviews_rated")
    output = parser.parse_args(arguments).output
    if output.exists():
        parser.error(f"{output} is there already: delete it, or give another --output")
    preset = helpers.find_preset("bert_reviews")
    keras.utils.set_random_seed(0)
    imdb = helpers.load_imdb("full")
    # the same 1,000 texts are held out as in the first stage
    order = np.random.default_rng(0).permutation(len(imdb.x_train) + len(imdb.unlabelled))
    held_out = [i for i in order[:1000] if i < len(imdb.x_train)]
    chosen = [i for i in order[1000:] if i < len(imdb.x_train)]
    tokenizer = keras_hub.tokenizers.BertTokenizer.from_preset(preset)
    rows, ratings = rows_and_ratings([imdb.x_train[i] for i in chosen], imdb.y_train[chosen], tokenizer)
    held = rows_and_ratings([imdb.x_train[i] for i in held_out], imdb.y_train[held_out], tokenizer)
    print(f"{len(rows):,} parts of {len(chosen):,} reviews", flush=True)

    backbone = keras_hub.models.BertBackbone.from_preset(preset)
    backbone.pooled_dense.trainable, mask = False, backbone.input["padding_mask"]
    states = backbone(backbone.input)["sequence_output"]
    mean = keras.layers.GlobalAveragePooling1D()(states, mask=mask)
    model = keras.Model(backbone.input, keras.layers.Dense(1)(mean))
    steps = PASSES * len(rows) // BATCH // 10 * 10
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - steps // 10, warmup_target=5e-4, warmup_steps=steps // 10
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.01),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")],
        jit_compile=True,
        steps_per_execution=10,
    )
    stream = tf.data.Dataset.from_tensor_slices((rows, ratings)).shuffle(len(rows), seed=0).repeat()
    stream = stream.batch(BATCH, drop_remainder=True).map(lambda ids, rating: (inputs(ids), rating[:, None]))
    unfinished = output.with_name(f"{output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    unfinished.mkdir(parents=True)
    model.fit(
        stream.prefetch(2),
        steps_per_epoch=steps // PASSES // 10 * 10,
        epochs=PASSES,
        validation_data=(inputs(held[0]), held[1][:, None]),
        validation_batch_size=100,
        callbacks=[keras.callbacks.CSVLogger(unfinished / "training_log.csv")],
        shuffle=False,
        verbose=2,
    )
    backbone.save_to_preset(str(unfinished))
    tokenizer.save_to_preset(str(unfinished))
    unfinished.rename(output)
    print(f"saved in {output}")


if __name__ == "__main__":
    main()
