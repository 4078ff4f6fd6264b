"""Make data/presets/bert_reviews_rated: two passes of IMDB's ratings on top of bert_reviews. It needs full IMDB.

python tools/second_stage.py [--epochs 2] [--output build/presets/bert_reviews_rated]
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


def rows_and_ratings(texts, ratings, tokenizer):
    """Parts of reviews as rows (N, 64) of int32 piece numbers, and the rating of the whole review (N,), 0 or 1."""
    vocabulary = {piece: number for number, piece in enumerate(tokenizer.get_vocabulary())}
    fast = BertWordPieceTokenizer(vocabulary, lowercase=True, strip_accents=True)  # in notebook 08 shown to agree
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default=str(ROOT / "data" / "presets" / "bert_reviews"))
    parser.add_argument("--output", default=str(ROOT / "build" / "presets" / "bert_reviews_rated"))
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()
    keras.utils.set_random_seed(0)
    imdb = helpers.load_imdb("full")
    order = np.random.default_rng(0).permutation(len(imdb.x_train) + len(imdb.unlabelled))  # as in notebook 08
    held_out = [i for i in order[:1000] if i < len(imdb.x_train)]
    chosen = [i for i in order[1000:] if i < len(imdb.x_train)]
    tokenizer = keras_hub.tokenizers.BertTokenizer.from_preset(given.preset)
    rows, ratings = rows_and_ratings([imdb.x_train[i] for i in chosen], imdb.y_train[chosen], tokenizer)
    held = rows_and_ratings([imdb.x_train[i] for i in held_out], imdb.y_train[held_out], tokenizer)
    print(f"{len(rows):,} parts of {len(chosen):,} reviews", flush=True)

    backbone = keras_hub.models.BertBackbone.from_preset(given.preset)
    backbone.pooled_dense.trainable, mask = False, backbone.input["padding_mask"]
    states = backbone(backbone.input)["sequence_output"]
    mean = keras.layers.GlobalAveragePooling1D()(states, mask=mask)
    model = keras.Model(backbone.input, keras.layers.Dense(1)(mean))
    steps = given.epochs * len(rows) // BATCH // 10 * 10
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
    fitted = model.fit(
        stream.prefetch(2),
        steps_per_epoch=steps // given.epochs // 10 * 10,
        epochs=given.epochs,
        validation_data=(inputs(held[0]), held[1][:, None]),
        validation_batch_size=100,
        shuffle=False,
        verbose=2,
    )
    output = Path(given.output)
    shutil.rmtree(output, ignore_errors=True)
    backbone.save_to_preset(str(output))
    tokenizer.save_to_preset(str(output))
    print(f"held-out parts: {fitted.history['val_accuracy'][-1]:.1%} right; saved in {output}")


if __name__ == "__main__":
    main()
